"""The retrieval report: exact categories, beside two honest baselines in the same table."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..attributes_clear import ABSENT, PRESENT, UNKNOWN, AttributeSchema
from ..datasets_scripts.retrieval_protocols import (
    RetrievalSplit,
    retrieval_split,
    unseen_categories,
)
from ..metrics.person_retrieval.person_retrieval import (
    mean_over_queries,
    query_metrics,
    retrieval_metrics,
)
from ..training.queries import full_rows, known_columns

BLOCK = 256  # queries whose scores are held at once
Scorer = Callable[[np.ndarray], np.ndarray]  # query numbers (queries,) -> scores (queries, gallery)


@dataclass(frozen=True)
class ExactQueries:
    """One query for each person category of a gallery.

    Args:
        columns: attributes that make the categories. split: queries and their answers.
        unseen: (queries,) bool, categories that training never showed.
        rows: (queries, all attributes) of 1, 0 and -100, what is no column unsaid.
    """

    columns: list[int]
    split: RetrievalSplit
    unseen: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(
        cls,
        labels: np.ndarray,
        seen_labels: np.ndarray,
        schema: AttributeSchema,
        category_attributes: str,
    ) -> "ExactQueries":
        """The queries of a gallery.

        Args:
            labels: of the gallery, (images, attributes). seen_labels: of what was trained on.
            category_attributes: as for `known_columns`.
        """
        columns = known_columns([labels, seen_labels], schema, category_attributes)
        split = retrieval_split(labels, columns)
        unseen = unseen_categories(split.queries, seen_labels, columns)
        rows = full_rows(split.queries, columns, schema.num_attributes)
        return cls(columns, split, unseen, rows)


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


def partial_row(scorer: Scorer, relevance: np.ndarray) -> dict[str, float]:
    """Metrics of queries with any relevance, (queries, gallery) bool; BLOCK queries at a time."""
    starts = range(0, len(relevance), BLOCK)
    parts = [np.arange(start, min(start + BLOCK, len(relevance))) for start in starts]
    return retrieval_metrics((scorer(numbers), relevance[numbers]) for numbers in parts)


def single_attribute_rows(
    labels: np.ndarray, schema: AttributeSchema
) -> tuple[list[int], np.ndarray]:
    """Attributes that some images have, some lack and all know, and a query for each alone.

    Shape: labels (images, attributes) -> numbers of the attributes, (that many, attributes).
    """
    is_known = (labels != UNKNOWN).all(axis=0)
    shares = (labels == PRESENT).mean(axis=0)
    columns = np.flatnonzero(is_known & (shares > 0) & (shares < 1)).tolist()
    rows = [schema.query_values([schema.attributes[column]]) for column in columns]
    return columns, np.array(rows, dtype=np.int64).reshape(-1, labels.shape[1])


def cosine_scorer(query_embeds: torch.Tensor, image_embeds: torch.Tensor) -> Scorer:
    """CLEAR: cosine of unit vectors (queries, embed_dim) and (gallery, embed_dim)."""
    queries, images = query_embeds.cpu().numpy(), image_embeds.cpu().numpy()
    return lambda numbers: queries[numbers] @ images.T


def likelihood_scorer(rows: np.ndarray, logits: torch.Tensor) -> Scorer:
    """The classifier's log-likelihood of all that a query says: the product of its attributes'.

    Args:
        rows: (queries, attributes) of 1, 0 and -100. logits: (gallery, attributes).
    """
    logits = logits.double()
    log_present = torch.nn.functional.logsigmoid(logits).numpy()
    log_absent = torch.nn.functional.logsigmoid(-logits).numpy()

    def score(numbers: np.ndarray) -> np.ndarray:
        wanted, unwanted = (
            (rows[numbers] == label).astype(np.float64) for label in (PRESENT, ABSENT)
        )
        return wanted @ log_present.T + unwanted @ log_absent.T

    return score


def random_scorer(gallery_size: int, seed: int = 0) -> Scorer:
    """What no knowledge gives: seeded random scores."""

    def score(numbers: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([seed, int(numbers[0])])
        return rng.random((len(numbers), gallery_size))

    return score


def plotted_queries(split: RetrievalSplit, count: int = 10, images: int = 20) -> list[np.ndarray]:
    """The images of the queries that are plotted: number of each query, then of its images.

    The most frequent categories, and of each the first images of the gallery.
    """
    sizes = np.bincount(split.gallery_categories)
    chosen = np.argsort(-sizes, kind="stable")[:count]
    return [
        np.r_[query, np.flatnonzero(split.gallery_categories == query)[:images]] for query in chosen
    ]


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
