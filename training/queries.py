"""Queries of the retrieval stage: one for each person category, and partial ones as people ask."""

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import transformers
from tqdm import tqdm

from ..attributes_clear import ABSENT, PRESENT, UNKNOWN, AttributeSchema
from ..evidence_clear import choice_columns
from ..modeling_clear import ClearModel
from ..peft_clear import weights_fingerprint
from ..processing_clear import ClearProcessor
from .feature_cache import code_version
from .tensor_store import TensorStore


def known_columns(
    labels: list[np.ndarray], schema: AttributeSchema, category_attributes: str = "evaluated"
) -> list[int]:
    """The attributes that define categories: those that are known for every image.

    Args:
        labels: of each split, (images, attributes) of 1, 0 and -100.
        category_attributes: "evaluated", or "all" of the schema, as in SAL's protocol on PETA.
    Raises: ValueError when there is none.
    """
    is_all = category_attributes == "all"
    candidates = range(schema.num_attributes) if is_all else schema.evaluated_indices
    is_known = (np.concatenate(labels) != UNKNOWN).all(axis=0)
    columns = [index for index in candidates if is_known[index]]
    if not columns:
        raise ValueError(
            f"`dataset` must have an attribute of {schema.name!r} that is known for every image "
            f"among `category_attributes` {category_attributes!r}, got none."
        )
    return columns


def full_rows(queries: np.ndarray, columns: list[int], num_attributes: int) -> np.ndarray:
    """Queries over some attributes as label rows; what they do not speak of is unsaid.

    Shape: (queries, len(columns)) of 1 and 0 -> (queries, num_attributes) of 1, 0 and -100.
    """
    rows = np.full((len(queries), num_attributes), UNKNOWN, dtype=np.int64)
    rows[:, columns] = queries
    return rows


def partial_rows(
    labels: np.ndarray, schema: AttributeSchema, rng: np.random.Generator, max_said: int = 5
) -> np.ndarray:
    """For each person one query that names one to `max_said` of the attributes they have.

    Shape: labels (images, attributes) of 1, 0 and -100 -> the same; a row stays unsaid when the
    person has no known attribute.
    """
    rows = np.full(labels.shape, UNKNOWN, dtype=np.int64)
    for row, values in zip(rows, labels, strict=True):
        present = np.flatnonzero(values == PRESENT)
        count = min(len(present), rng.integers(1, max_said + 1))
        if count:
            said = rng.choice(present, count, replace=False)
            row[:] = schema.query_values([schema.attributes[index] for index in said])
    return rows


def matching_rows(labels: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Which image shows all that which query says, and nothing that it excludes.

    Shape: labels (images, attributes), queries (queries, attributes), of 1, 0 and -100 ->
    (images, queries) bool; a query that says nothing matches nothing.
    """
    present = (labels == PRESENT).float()
    wanted, unwanted = (queries == PRESENT).float(), (queries == ABSENT).float()
    violations = (1 - present) @ wanted.T + present @ unwanted.T  # (images, queries)
    return (violations == 0) & (wanted.sum(1) > 0)


def partial_queries(
    labels: np.ndarray, schema: AttributeSchema, size: int, count: int = 500, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Queries of `size` attributes as people ask, each with an image that answers it.

    A query names attributes that a random image of the gallery has, so that what is frequent is
    asked often; each set of attributes is asked once. Only attributes that are known for every
    image are named. An image answers a query when it has all the named attributes; what is unsaid
    does not matter.

    Args:
        labels: of the gallery, (images, attributes) of 1, 0 and -100.
        count: the most queries; fewer when there are not so many sets.
        seed: the draw is repeatable.
    Returns: label rows (queries, attributes) as `AttributeSchema.query_values` gives them, and
        relevance (queries, images) bool; neither has a row when no image has so many attributes.
    """
    present = (labels == PRESENT) & (labels != UNKNOWN).all(axis=0)
    rich = np.flatnonzero(present.sum(axis=1) >= size)
    rng, chosen = np.random.default_rng([seed, size]), {}
    for _ in range(20 * count if len(rich) else 0):
        columns = rng.choice(np.flatnonzero(present[rng.choice(rich)]), size, replace=False)
        chosen[tuple(sorted(columns.tolist()))] = None
        if len(chosen) == count:
            break
    rows = [schema.query_values([schema.attributes[c] for c in columns]) for columns in chosen]
    relevance = [present[:, list(columns)].all(axis=1) for columns in chosen]
    return (
        np.array(rows, dtype=np.int64).reshape(-1, labels.shape[1]),
        np.array(relevance, dtype=bool).reshape(-1, len(labels)),
    )


def choice_values(rows: np.ndarray, schema: AttributeSchema) -> torch.Tensor:
    """What each category says of each choice (group or flag), as `semantic_margin_loss` reads it.

    Shape: rows (categories, attributes) -> (categories, choices) integers from 0; choices of which
        all categories say the same are left out.
    """
    columns = [
        np.unique(rows[:, places], axis=0, return_inverse=True)[1].reshape(-1)
        for places in choice_columns(schema)
    ]
    return torch.from_numpy(np.stack([c for c in columns if c.any()], axis=1))


class TextCache:
    """Embeddings of query texts by a frozen language model, each text computed once.

    Args:
        folder: where the embeddings are kept between runs as well; None: in memory alone.
    """

    def __init__(self, model: ClearModel, processor: ClearProcessor, folder: Path | None = None):
        self.model, self.processor = model, processor
        self.store = None if folder is None else TensorStore(folder, "texts")
        self.known: dict[str, torch.Tensor] = {}
        found = self.store and self.store.load(self.key)
        if found:
            self.known = dict(zip(found[1]["texts"], found[0], strict=True))

    @cached_property
    def key(self) -> dict:
        """All that an embedding depends on beside its text."""
        tokenizer = json.loads(self.processor.tokenizer.backend_tokenizer.to_str())
        return {
            "weights": weights_fingerprint(self.model.language_model),
            "sizes": self.model.config.text_config.to_dict(),
            "pooling": self.model.config.text_pooling,
            "tokenizer": {n: v for n, v in tokenizer.items() if n not in ("padding", "truncation")},
            "libraries": [torch.__version__, transformers.__version__],
            "code": code_version(),
            "device": self.model.device.type,
        }

    @torch.no_grad()
    def embed(self, rows: np.ndarray, batch_size: int = 256) -> torch.Tensor:
        """Embed the text of each query.

        Shape: rows (queries, attributes) -> (queries, hidden_size), unit length; zero where a query
            names nothing that is present, and so has no text.
        """
        distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
        say = self._words()
        texts = [say(row) if (row == PRESENT).any() else None for row in distinct]
        new = {t: r for t, r in zip(texts, distinct, strict=True) if t and t not in self.known}
        self._learn(new, batch_size)
        silence = torch.zeros(self.model.config.text_config.hidden_size)
        embeds = torch.stack([silence if t is None else self.known[t] for t in texts])
        return embeds[torch.from_numpy(inverse.reshape(-1))].to(self.model.device)

    def _words(self) -> Callable[[np.ndarray], str]:
        schema, kind = self.processor.schema, self.processor.query_kind
        return schema.words if kind == "words" else schema.describe

    def _learn(self, new: dict[str, np.ndarray], batch_size: int) -> None:
        """Embed texts that were not met before."""
        texts = list(new)
        for start in tqdm(range(0, len(texts), batch_size), "embed queries", leave=False):
            chosen = texts[start : start + batch_size]
            rows = np.stack([new[text] for text in chosen])
            batch = self.processor(labels=rows, return_tensors="pt").to(self.model.device)
            found = self.model.encode_text(batch["input_ids"], batch["attention_mask"])
            self.known.update(zip(chosen, found.float().cpu(), strict=True))
        if self.store and texts and is_main_process():
            known = list(self.known)
            tensor = torch.stack([self.known[text] for text in known])
            self.store.save(self.key, tensor, {"texts": known})


def is_main_process() -> bool:
    """Whether this process may write; true where there is only one."""
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0


def embed_texts(
    model: ClearModel, processor: ClearProcessor, rows: np.ndarray, batch_size: int = 256
) -> torch.Tensor:
    """The frozen language model's embedding of each query; see `TextCache.embed`."""
    return TextCache(model, processor).embed(rows, batch_size)
