"""The retrieval protocols of papers by name, as data: which rows train, which are searched.

Counts are those of the published annotations; a split that deviates from them is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets

from ..attributes_clear import AttributeGroup, AttributeSchema
from .person_builder import PersonRecords
from .person_dataset import open_person_dataset, person_schema
from .retrieval_protocols import RetrievalSplit, retrieval_split, unseen_categories

# Splits by name, all rows of a data set that know their splits, or the gallery alone.
ProtocolRows = Mapping[str, object] | PersonRecords | Dataset | np.ndarray


@dataclass(frozen=True)
class RetrievalProtocol:
    """What a protocol is made of.

    Args:
        dataset, config_name: As for `open_person_dataset`.
        train, gallery: Splits, one after the other.
        evaluated_only: Categories are vectors of the evaluated attributes, not of all.
        counts: Of images and categories in both parts, as far as they are known.
        groups: Groups and flags of the schema, in the order of the one-hot vector that a paper
            writes categories as; none if it writes the attributes themselves.
        source: Where the protocol is from.
    """

    dataset: str
    config_name: str
    train: tuple[str, ...]
    gallery: tuple[str, ...]
    evaluated_only: bool
    counts: Mapping[str, int]
    source: str
    groups: tuple[str, ...] = ()


_TRAINVAL = ("train", "validation")
PROTOCOLS = {
    "market1501": RetrievalProtocol(
        dataset="market1501",
        config_name="default",
        train=_TRAINVAL,
        gallery=("bounding_box_test", "query"),
        evaluated_only=False,
        counts={
            "training images": 12936,
            "training categories": 508,
            "gallery images": 16483,
            "queries": 484,
            "unseen queries": 315,
        },
        source="Jeong, Park and Kwak, ASMR, ICCV 2021",
        groups=(
            *("age", "bag type", "lower colour", "upper colour", "lower type"),
            *("lower length", "upper sleeve", "hair length", "hat", "gender"),
        ),
    ),
    "peta-sal": RetrievalProtocol(
        dataset="peta",
        config_name="sal",
        train=_TRAINVAL,
        gallery=("test",),
        evaluated_only=False,
        counts={
            "training images": 11886,
            "training categories": 1890,
            "gallery images": 1435,
            "queries": 200,
            "unseen queries": 200,
        },
        source="Cao, Wang and Tao, SAL, ECCV 2020",
    ),
    "peta-split0": RetrievalProtocol(
        dataset="peta",
        config_name="partition0",
        train=_TRAINVAL,
        gallery=("test",),
        evaluated_only=True,
        counts={
            "training images": 11400,
            "training categories": 2847,
            "gallery images": 7600,
            "queries": 2242,
            "unseen queries": 863,
        },
        source="the official partition 0 with its 35 evaluated attributes",
    ),
    "pa100k": RetrievalProtocol(
        dataset="pa100k",
        config_name="default",
        train=_TRAINVAL,
        gallery=("test",),
        evaluated_only=True,
        counts={
            "training images": 90000,
            "training categories": 2217,
            "gallery images": 10000,
            "queries": 849,
            "unseen queries": 153,
        },
        source="the official split with its 26 attributes",
    ),
    # The training rows are not counted in categories here: only a part of them was at hand.
    "upar2024-val": RetrievalProtocol(
        dataset="upar2024",
        config_name="default",
        train=("train",),
        gallery=("validation",),
        evaluated_only=False,
        counts={"training images": 97670, "gallery images": 33407, "queries": 3462},
        source="track 2 of the UPAR challenge, WACV 2024",
    ),
}


@dataclass(frozen=True)
class ProtocolSplit(RetrievalSplit):
    """The queries of a protocol, their answers, and what training showed.

    Args:
        columns: Places of the categories' attributes in the label rows.
        train_categories: (training images,) int64, numbers among `train_queries`; None, as are the
            two below, where the gallery alone was given.
        train_queries: (training categories, attributes) int8.
        unseen: (categories,) bool, true where no training image has the vector; `relevance(unseen)`
            is the sub-set of unseen categories.
        group_vectors: (categories, values of all groups) int8; None where the protocol has none.
    """

    columns: Sequence[int] = ()
    train_categories: np.ndarray | None = None
    train_queries: np.ndarray | None = None
    unseen: np.ndarray | None = None
    group_vectors: np.ndarray | None = None

    @property
    def counts(self) -> dict[str, int]:
        """Images and categories, under the names of `RetrievalProtocol.counts`."""
        counts = {"gallery images": len(self.gallery_categories), "queries": len(self.queries)}
        if self.unseen is None:
            return counts
        return {
            "training images": len(self.train_categories),
            "training categories": len(self.train_queries),
            **counts,
            "unseen queries": int(self.unseen.sum()),
        }


@dataclass(frozen=True)
class LoadedProtocol:
    """A protocol with its rows.

    Args:
        name: Of the protocol.
        train, gallery: Rows with the columns of `person_features`.
        split: Its categories, in the order of these rows.
        schema: Meaning of the labels.
    """

    name: str
    train: Dataset = field(repr=False)
    gallery: Dataset = field(repr=False)
    split: ProtocolSplit = field(repr=False)
    schema: AttributeSchema = field(repr=False)


def retrieval_protocol(name: str) -> RetrievalProtocol:
    """Return a protocol by its name.

    Raises:
        ValueError: There is none of this name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"`protocol` must be one of {', '.join(PROTOCOLS)}, got {name!r}.")
    return PROTOCOLS[name]


def protocol_split(rows: ProtocolRows, name: str, strict: bool = True) -> ProtocolSplit:
    """Find the queries of a protocol and their answers.

    Args:
        rows: Split name -> Dataset or (images, attributes) labels; or the records of a builder; or
            the gallery alone.
        name: Of the protocol.
        strict: Refuse rows that deviate from the published counts.

    Raises:
        ValueError: There is no such protocol, a split is missing, or a count deviates.
    """
    protocol, schema = retrieval_protocol(name), person_schema(PROTOCOLS[name].dataset)
    every = list(range(schema.num_attributes))
    columns = schema.evaluated_indices if protocol.evaluated_only else every
    train, gallery = _both_parts(rows, protocol)
    found = retrieval_split(gallery, columns)
    fields = {"queries": found.queries, "gallery_categories": found.gallery_categories}
    if train is not None:
        trained = retrieval_split(train, columns)
        fields["train_categories"] = trained.gallery_categories
        fields["train_queries"] = trained.queries
        fields["unseen"] = unseen_categories(found.queries, trained.queries)
    if protocol.groups:
        fields["group_vectors"] = group_vectors(found.queries, schema, protocol.groups)
    split = ProtocolSplit(columns=tuple(columns), **fields)
    if strict:
        _require_counts(split.counts, protocol.counts, name)
    return split


def load_protocol(
    name: str,
    data_dir: str | Path,
    cache_dir: str | Path | None = None,
    strict: bool = True,
    **options: object,
) -> LoadedProtocol:
    """Load the rows of a protocol from the official download of its data set.

    Args:
        name: One of PROTOCOLS.
        data_dir, cache_dir: As for `open_person_dataset`.
        strict: Refuse rows that deviate from the published counts.
        **options: Of the builder; with `allow_partial=True`, `strict` must be off.

    Raises:
        ValueError: There is no such protocol, or the data set deviates.
        FileNotFoundError: `data_dir` does not hold the data set.
    """
    protocol = retrieval_protocol(name)
    data = open_person_dataset(
        protocol.dataset, data_dir, protocol.config_name, cache_dir, **options
    )
    rows = {split: data.rows(split) for split in (*protocol.train, *protocol.gallery)}
    return LoadedProtocol(
        name=name,
        train=concatenate_datasets([rows[split] for split in protocol.train]),
        gallery=concatenate_datasets([rows[split] for split in protocol.gallery]),
        split=protocol_split(rows, name, strict),
        schema=data.schema,
    )


def group_vectors(labels: np.ndarray, schema: AttributeSchema, names: Sequence[str]) -> np.ndarray:
    """Write label rows as one-hot groups, each with a value for "none of them".

    Args:
        labels: (rows, attributes) in {0, 1}.
        schema: Of the labels; the order of values is its own.
        names: Of groups, which must have one value in every row, and of flags (absent, present).

    Returns:
        (rows, values of all groups) int8.

    Raises:
        ValueError: A name is unknown, or a row has no value of a group or several.
    """
    entries = {entry.name: entry for entry in (*schema.groups, *schema.flags)}
    if unknown := [name for name in names if name not in entries]:
        raise ValueError(f"`names` must be of {', '.join(entries)}, got {unknown[0]!r}.")
    blocks = [_one_hot(labels, schema, entries[name]) for name in names]
    for name, block in zip(names, blocks, strict=True):
        if (wrong := np.flatnonzero(block.sum(axis=1) != 1)).size:
            raise ValueError(
                f"`labels` must have one value of {name!r}, got none or several in row {wrong[0]}."
            )
    return np.concatenate(blocks, axis=1).astype(np.int8)


def _one_hot(labels: np.ndarray, schema: AttributeSchema, entry: object) -> np.ndarray:
    """(rows, values)."""
    if not isinstance(entry, AttributeGroup):
        present = labels[:, schema.index(entry.attribute)]
        return np.stack([1 - present, present], axis=1)
    options = {value: labels[:, schema.index(name)] for value, name in entry.options.items()}
    if entry.otherwise is not None and entry.otherwise not in options:
        options[entry.otherwise] = 1 - np.max(list(options.values()), axis=0)
    return np.stack([options[value] for value in entry.phrases], axis=1)


def _both_parts(
    rows: ProtocolRows, protocol: RetrievalProtocol
) -> tuple[np.ndarray | None, np.ndarray]:
    if isinstance(rows, PersonRecords):
        rows = {split: rows.labels[places] for split, places in rows.splits.items()}
    if not isinstance(rows, Mapping):
        return None, _label_rows(rows)
    wanted = (*protocol.train, *protocol.gallery)
    if missing := [split for split in wanted if split not in rows]:
        raise ValueError(
            f"`rows` must have the splits {', '.join(wanted)}, got none of the name {missing[0]!r}."
        )
    parts = (protocol.train, protocol.gallery)
    train, gallery = (np.concatenate([_label_rows(rows[s]) for s in part]) for part in parts)
    return train, gallery


def _label_rows(rows: object) -> np.ndarray:
    if isinstance(rows, Dataset):
        rows = rows.select_columns("labels").with_format("numpy")[:]["labels"]
    return np.asarray(rows)


def _require_counts(found: Mapping[str, int], wanted: Mapping[str, int], name: str) -> None:
    wrong = [
        f"{wanted[key]} {key}, got {count}"
        for key, count in found.items()
        if wanted.get(key, count) != count
    ]
    if wrong:
        raise ValueError(
            f"`rows` must be those of protocol {name!r} with {'; '.join(wrong)}. With "
            "`strict=False` they are taken, but results are not comparable with published ones."
        )


__all__ = [
    "PROTOCOLS",
    "LoadedProtocol",
    "ProtocolSplit",
    "RetrievalProtocol",
    "group_vectors",
    "load_protocol",
    "protocol_split",
    "retrieval_protocol",
]
