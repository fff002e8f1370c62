"""The retrieval report: exact categories, beside two honest baselines in the same table."""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from ..datasets_scripts.retrieval_protocols import RetrievalSplit
from ..metrics.person_retrieval.person_retrieval import mean_over_queries, query_metrics

BLOCK = 256  # queries whose scores are held at once
Scorer = Callable[[np.ndarray], np.ndarray]  # query numbers (queries,) -> scores (queries, gallery)


def retrieval_report(
    scorers: dict[str, Scorer], split: RetrievalSplit, unseen: np.ndarray
) -> list[dict]:
    """One row for each method, over all queries and over the unseen categories only.

    Args:
        scorers: method -> Scorer.
        unseen: (queries,) bool, categories that training never showed.
    """
    rows = []
    for method, scorer in scorers.items():
        per_query = query_metrics(score_blocks(scorer, split))
        for name, chosen in (("all", np.ones_like(unseen)), ("unseen", unseen)):
            if chosen.any():
                scores = mean_over_queries({key: v[chosen] for key, v in per_query.items()})
                rows.append({"method": method, "queries": name, **scores})
    return rows


def score_blocks(scorer: Scorer, split: RetrievalSplit) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(scores, relevance) of some queries at a time."""
    for start in range(0, len(split.queries), BLOCK):
        numbers = np.arange(start, min(start + BLOCK, len(split.queries)))
        yield scorer(numbers), split.relevance(numbers)


def cosine_scorer(query_embeds: torch.Tensor, image_embeds: torch.Tensor) -> Scorer:
    """CLEAR: cosine of unit vectors (queries, embed_dim) and (gallery, embed_dim)."""
    queries, images = query_embeds.cpu().numpy(), image_embeds.cpu().numpy()
    return lambda numbers: queries[numbers] @ images.T


def likelihood_scorer(split: RetrievalSplit, logits: torch.Tensor) -> Scorer:
    """The classifier's log-likelihood of the whole query: the product of its attributes'.

    Args:
        logits: (gallery, attributes of the query).
    """
    logits = logits.double()
    log_present = torch.nn.functional.logsigmoid(logits).numpy()
    log_absent = torch.nn.functional.logsigmoid(-logits).numpy()

    def score(numbers: np.ndarray) -> np.ndarray:
        wanted = split.queries[numbers].astype(np.float64)
        return wanted @ log_present.T + (1 - wanted) @ log_absent.T

    return score


def random_scorer(gallery_size: int, seed: int = 0) -> Scorer:
    """What no knowledge gives: seeded random scores."""

    def score(numbers: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([seed, int(numbers[0])])
        return rng.random((len(numbers), gallery_size))

    return score


def chosen_queries(split: RetrievalSplit, count: int = 5, least: int = 5) -> np.ndarray:
    """Numbers of the queries that are shown: from the most frequent category to rarer ones.

    Evenly spaced in the order of frequency, among those that say something and have at least
    `least` images (all that say something, where fewer than `count` have so many).
    """
    sizes = np.bincount(split.gallery_categories)
    order = np.argsort(-sizes, kind="stable")
    order = order[split.queries[order].any(axis=1)]
    frequent = order[sizes[order] >= least]
    order = frequent if len(frequent) >= count else order
    places = np.linspace(0, len(order) - 1, min(count, len(order)))
    return order[places.round().astype(int)]
