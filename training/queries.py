"""Queries of the retrieval stage: one for each person category, and partial ones as people ask."""

import numpy as np
import torch
from tqdm import tqdm

from ..attributes_clear import ABSENT, PRESENT, UNKNOWN, AttributeSchema
from ..modeling_clear import ClearModel
from ..processing_clear import ClearProcessor


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

    Shape: rows (queries, attributes) -> (queries, hidden_size).
    """
    distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
    embeds = []
    for start in tqdm(range(0, len(distinct), batch_size), "embed queries", leave=False):
        batch = processor(labels=distinct[start : start + batch_size], return_tensors="pt")
        batch = batch.to(model.device)
        embeds.append(model.encode_text(batch["input_ids"], batch["attention_mask"]))
    return torch.cat(embeds)[torch.from_numpy(inverse.reshape(-1)).to(model.device)]
