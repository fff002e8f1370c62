"""Queries of the retrieval stage: one for each person category, and partial ones as people ask."""

import numpy as np
import torch
from tqdm import tqdm

from ..attributes_clear import ABSENT, PRESENT, UNKNOWN, AttributeSchema
from ..modeling_clear import ClearModel
from ..processing_clear import ClearProcessor


def known_columns(labels: list[np.ndarray], schema: AttributeSchema) -> list[int]:
    """The evaluated attributes that are known for every image: only these define categories.

    Args:
        labels: of each split, (images, attributes) of 1, 0 and -100.
    Raises: ValueError when there is none.
    """
    known = np.concatenate(labels)[:, schema.evaluated_indices] != UNKNOWN
    columns = [
        index
        for index, column in zip(schema.evaluated_indices, known.T, strict=True)
        if column.all()
    ]
    if not columns:
        raise ValueError(
            f"`dataset` must have an evaluated attribute of {schema.name!r} that is known for "
            "every image, got none."
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


@torch.no_grad()
def embed_texts(
    model: ClearModel, processor: ClearProcessor, rows: np.ndarray, batch_size: int = 256
) -> torch.Tensor:
    """The frozen language model's embedding of each query, computed once per distinct text.

    Shape: rows (queries, attributes) -> (queries, hidden_size), unit length; zero where a query
    names nothing that is present, and so has no text.
    """
    distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
    spoken = np.flatnonzero((distinct == PRESENT).any(axis=1))
    embeds = torch.zeros(len(distinct), model.config.text_config.hidden_size, device=model.device)
    for start in tqdm(range(0, len(spoken), batch_size), "embed queries", leave=False):
        chosen = spoken[start : start + batch_size]
        batch = processor(labels=distinct[chosen], return_tensors="pt").to(model.device)
        texts = model.encode_text(batch["input_ids"], batch["attention_mask"])
        embeds[torch.from_numpy(chosen).to(model.device)] = texts.float()
    return embeds[torch.from_numpy(inverse.reshape(-1)).to(model.device)]
