"""Retrieval protocols as data: categories, queries and relevance from label rows.

A person category is one exact label vector. A query is that vector alone, and every gallery image
with exactly the same vector is relevant to it. NumPy only; the protocols of papers stand, by their
names, in named_protocols.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .named_protocols import ProtocolRows


def category_ids(labels: np.ndarray) -> np.ndarray:
    """Number the distinct rows in order of first appearance.

    Args:
        labels: (images, attributes), any integers.

    Returns:
        (images,) int64; images with equal rows share a number, the first row has 0.
    """
    number_of: dict[bytes, int] = {}
    # Ten times faster than sorting the rows with np.unique.
    rows = map(bytes, np.ascontiguousarray(labels))
    ids = [number_of.setdefault(row, len(number_of)) for row in rows]
    return np.array(ids, dtype=np.int64)


@dataclass(frozen=True)
class RetrievalSplit:
    """The queries of a gallery and their answers.

    Args:
        queries: (categories, attributes) int8 in {0, 1}, in order of first appearance.
        gallery_categories: (images,) int64; the one query that each gallery image answers.
    """

    queries: np.ndarray
    gallery_categories: np.ndarray

    def relevance(self, queries: np.ndarray | None = None) -> np.ndarray:
        """Say which gallery image answers which query.

        Args:
            queries: Category numbers or a mask over them; None for all.

        Returns:
            (queries, images) bool.
        """
        numbers = np.arange(len(self.queries))
        chosen = numbers if queries is None else numbers[queries]
        return chosen[:, None] == self.gallery_categories[None, :]


def retrieval_split(
    labels: np.ndarray | ProtocolRows,
    indices: Sequence[int] | str | None = None,
    protocol: str | None = None,
) -> RetrievalSplit:
    """Turn the label rows of a gallery into one query per category.

    Args:
        labels: (images, all attributes), 1 present, 0 absent; with a protocol, all that
            `protocol_split` takes.
        indices: Columns that define a category, such as a schema's evaluated ones; None for all.
            The name of a protocol may stand in its place.
        protocol: Name of a protocol, which says which columns.

    Returns:
        A RetrievalSplit over the chosen columns; of a protocol, a ProtocolSplit.

    Raises:
        ValueError: `labels` is not a matrix, is empty, or holds anything but 0 and 1; or as
            `protocol_split` does.
    """
    if isinstance(indices, str):
        indices, protocol = None, indices
    if protocol is not None and indices is not None:
        raise ValueError(f"`indices` must be left to the protocol, got {indices} for {protocol!r}.")
    if protocol is not None:
        # Protocols know the data sets, whose builders number their categories with this module.
        from .named_protocols import protocol_split

        return protocol_split(labels, protocol)
    rows = _binary_rows(labels, indices, "labels")
    if rows.size == 0:
        raise ValueError(f"`labels` must have rows and columns, got shape {rows.shape}.")
    categories = category_ids(rows)
    _, first_rows = np.unique(categories, return_index=True)
    return RetrievalSplit(queries=rows[first_rows], gallery_categories=categories)


def unseen_categories(
    test_queries: np.ndarray, train_labels: np.ndarray, indices: Sequence[int] | None = None
) -> np.ndarray:
    """Mark the queries whose exact vector no training image has.

    `train_labels` are the rows that the model was trained on. Papers train on train+val, and their
    counts of unseen categories (PETA partition 0: 863 of 2,242) are taken against both together;
    against the train part alone there are more (953).

    Args:
        test_queries: (queries, attributes) in {0, 1}, as in `RetrievalSplit.queries`.
        train_labels: (images, all attributes) in {0, 1}.
        indices: Columns of `train_labels` that the queries consist of; None for all.

    Returns:
        (queries,) bool, true where unseen.

    Raises:
        ValueError: The two differ in their number of attributes, or hold anything but 0 and 1.
    """
    queries = _binary_rows(test_queries, None, "test_queries")
    rows = _binary_rows(train_labels, indices, "train_labels")
    if queries.shape[1] != rows.shape[1]:
        raise ValueError(
            f"`train_labels` must have the {queries.shape[1]} attributes of the queries, got "
            f"{rows.shape[1]}; pass the `indices` that made the queries."
        )
    seen = {row.tobytes() for row in rows}
    return np.array([query.tobytes() not in seen for query in queries], dtype=bool)


def held_out_categories(
    labels: np.ndarray, num_train: int = 1890, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Split images so that no test category occurs in training.

    Source: the PETA protocol of SAL (Cao, Wang and Tao, "Symbiotic Adversarial Learning for
    Attribute-based Person Search", ECCV 2020): all 105 labels, categories with a single image are
    dropped, and 1,890 of the remaining 2,090 are drawn for training.

    Args:
        labels: (images, attributes) of the whole data set, by image number.
        num_train: Categories to train on; the rest are tested.
        seed: Of the draw; 1 gives the published split.

    Returns:
        Row numbers of the training images and of the test images.

    Raises:
        ValueError: Fewer categories than `num_train` have two images or more.
    """
    categories = category_ids(labels)
    kept = np.flatnonzero(np.bincount(categories) >= 2)
    if not 0 < num_train < len(kept):
        raise ValueError(
            f"`num_train` must lie between 0 and the {len(kept)} categories that have two images "
            f"or more, got {num_train}."
        )
    # The published split is one draw of NumPy's legacy generator; a new one gives other categories.
    drawn = np.random.RandomState(seed).choice(len(kept), num_train, replace=False)
    is_train = np.isin(categories, kept[drawn])
    is_kept = np.isin(categories, kept)
    return np.flatnonzero(is_train), np.flatnonzero(is_kept & ~is_train)


def _binary_rows(labels: np.ndarray, indices: Sequence[int] | None, argument: str) -> np.ndarray:
    rows = np.asarray(labels)
    if rows.ndim != 2:
        raise ValueError(f"`{argument}` must be (images, attributes), got shape {rows.shape}.")
    if indices is not None:
        rows = rows[:, np.asarray(indices, dtype=np.int64)]
    if not np.isin(rows, (0, 1)).all():
        strange = np.setdiff1d(rows, (0, 1))[:5].tolist()
        raise ValueError(
            f"`{argument}` must be 0 or 1, got {strange}; choose attributes that are known for "
            "every image with `indices`."
        )
    return np.ascontiguousarray(rows, dtype=np.int8)


__all__ = [
    "RetrievalSplit",
    "category_ids",
    "held_out_categories",
    "retrieval_split",
    "unseen_categories",
]
