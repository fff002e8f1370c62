"""Several data sets as one: labels mapped onto one schema, rows one after the other.

A mixture is a JSON file; see "Mixtures" in README.md.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, concatenate_datasets

from ..attributes_clear import AttributeSchema
from .label_mapping import find_mapping
from .person_data import PersonData, Terms, joined
from .person_dataset import (
    UNKNOWN_PERSON,
    open_person_dataset,
    person_features,
    person_schema,
)
from .retrieval_protocols import category_ids

logger = logging.getLogger(__name__)

_SPLITS = ("train", "validation", "test")
_SEED = 0  # of the rows that `limit` and a broken `weight` choose


@dataclass(frozen=True)
class MixturePart:
    """One data set of a mixture, as its JSON says.

    Args:
        dataset, data_dir, config_name, options: As for `open_person_dataset`.
        name: Before the image names and in "name:split"; None: that of the data set.
        mapping: A mapping file of your own.
        limit: Training rows at most. weight: How often a training row comes in an epoch; 0.5 takes
            half of the rows, 2 takes each twice.
    """

    dataset: str
    data_dir: str | None = None
    config_name: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    name: str | None = None
    mapping: str | None = None
    limit: int | None = None
    weight: float = 1.0

    def __post_init__(self):
        if self.limit is not None and (not isinstance(self.limit, int) or self.limit < 1):
            raise ValueError(f"`limit` must be a number of rows from 1, got {self.limit!r}.")
        if not isinstance(self.weight, (int, float)) or not 0 < self.weight <= 100:
            raise ValueError(f"`weight` must be above 0 and at most 100, got {self.weight!r}.")

    def chosen(self, count: int) -> np.ndarray:
        """Row numbers of a training split of `count` rows, in order, repeated by weight."""
        rng = np.random.default_rng([_SEED, count])
        kept = np.sort(rng.permutation(count)[: self.limit])
        whole, rest = math.floor(self.weight), self.weight % 1
        part = np.sort(rng.permutation(kept)[: round(rest * len(kept))])
        return np.concatenate([*[kept] * whole, part]).astype(np.int64)


@dataclass(frozen=True)
class _MappedPart:
    """An opened data set, its mapped labels of each split, and where its numbers start."""

    part: MixturePart
    data: PersonData
    labels: Mapping[str, np.ndarray]
    first_person: int


class MixtureData(PersonData):
    """The data sets of a JSON file under one schema.

    Image names begin with the name of their data set, person numbers do not overlap, and
    `category_id` numbers the mapped label vectors over all data sets.

    Args: path: {"schema": ..., "sources": [{"dataset": ..., ...}, ...]}.
    Raises: ValueError: the file is no mixture, or a data set in it cannot be opened.
    """

    def __init__(self, path: str | Path, cache_dir: str | Path | None = None):
        self.path = Path(path).expanduser()
        self.name, content = self.path.stem, _content(self.path)
        self.schema = _target(content["schema"], self.path)
        self._parts: dict[str, _MappedPart] = {}
        first_person = 0
        for entry in content["sources"]:
            part = _part(entry, self.path)
            data = open_person_dataset(
                part.dataset, part.data_dir, part.config_name, cache_dir, **part.options
            )
            name = part.name or data.name
            if name in self._parts:
                raise ValueError(f"`name` must be unique, got {name!r} twice. Give one a `name`.")
            mapping = find_mapping(data.schema, self.schema, part.mapping and Path(part.mapping))
            columns = {split: _columns(data, split) for split in data.split_sizes}
            labels = {split: mapping.apply(found[0]) for split, found in columns.items()}
            self._parts[name] = _MappedPart(part, data, labels, first_person)
            first_person += 1 + max(int(found[1].max()) for found in columns.values())

    @property
    def terms(self) -> Terms:
        """The terms of every data set in it; one that forbids to publish forbids it for all."""
        terms = {name: mapped.data.terms for name, mapped in self._parts.items()}
        licenses = {t.hub_license for t in terms.values()}
        return Terms(
            license="; ".join(f"{name}: {t.license}" for name, t in terms.items()),
            hub_license=licenses.pop() if len(licenses) == 1 else "other",
            citation=" ".join(t.citation for t in terms.values() if t.citation),
        )

    @property
    def split_sizes(self) -> dict[str, int]:
        """Split, and "name:split" for the one of a single data set -> number of rows."""
        splits = [s for s in _SPLITS if any(s in mapped.labels for mapped in self._parts.values())]
        sizes = {split: self._size(split) for split in splits}
        for name, mapped in self._parts.items():
            sizes |= {f"{name}:{split}": len(rows) for split, rows in mapped.labels.items()}
        return sizes

    def _size(self, split: str) -> int:
        having = [mapped for mapped in self._parts.values() if split in mapped.labels]
        return sum(len(self._numbers(mapped, split)) for mapped in having)

    @staticmethod
    def _numbers(mapped: _MappedPart, split: str) -> np.ndarray:
        count = len(mapped.labels[split])
        return mapped.part.chosen(count) if split == "train" else np.arange(count)

    def rows(self, split: str) -> Dataset:
        """All rows of one split."""
        name, colon, own_split = split.partition(":")
        if colon:
            return self._mapped_rows(name, own_split)
        parts, lacking = [], []
        for name, mapped in self._parts.items():
            if split not in mapped.labels:
                lacking.append(name)
                continue
            rows, numbers = self._mapped_rows(name, split), self._numbers(mapped, split)
            is_all = np.array_equal(numbers, np.arange(len(rows)))
            parts.append(rows if is_all else rows.select(numbers))
        if lacking:
            logger.warning("%s has no split %r; it is left out.", ", ".join(lacking), split)
        return joined(parts)

    def _mapped_rows(self, name: str, split: str) -> Dataset:
        mapped, features = self._parts[name], person_features(self.schema)
        rows = mapped.data.rows(split)
        others = rows.select_columns(["person_id", "camera", "image_name"]).with_format("numpy")[:]
        persons = others["person_id"].astype(np.int64)
        moved = np.where(persons == UNKNOWN_PERSON, persons, persons + mapped.first_person)
        new = {
            "labels": mapped.labels[split].tolist(),
            "person_id": moved,
            "camera": others["camera"],
            "image_name": [f"{name}/{image}" for image in others["image_name"]],
            "category_id": self._categories[name, split],
        }
        kept = {key: features[key] for key in new}
        columns = Dataset.from_dict(new, features=Features(kept))
        return concatenate_datasets([rows.select_columns(["image"]), columns], axis=1)

    @cached_property
    def _categories(self) -> dict[tuple[str, str], np.ndarray]:
        keys = [(name, split) for name, m in self._parts.items() for split in m.labels]
        labels = [self._parts[name].labels[split] for name, split in keys]
        ends = np.cumsum([len(part) for part in labels])
        numbers = np.split(category_ids(np.concatenate(labels)), ends[:-1])
        return dict(zip(keys, numbers, strict=True))


def mixture_schema(path: str | Path) -> AttributeSchema:
    """The schema that a mixture maps onto."""
    path = Path(path).expanduser()
    return _target(_content(path)["schema"], path)


def _content(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if set(content) != {"schema", "sources"} or not content["sources"]:
            raise ValueError(f"it must have the keys schema and sources, got {sorted(content)}")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"`dataset` must be a mixture, got {path.name!r}: {error}. Write it like "
            '{"schema": "upar", "sources": [{"dataset": "peta", "data_dir": "data/PETA"}]}.'
        ) from error
    return content


def _target(name: str, mixture: Path) -> AttributeSchema:
    own = mixture.parent / name
    if name.endswith(".json") and own.is_file():
        return AttributeSchema.from_json(own)
    return person_schema(name)


def _part(entry: Mapping, mixture: Path) -> MixturePart:
    known = [f.name for f in fields(MixturePart)]
    if not isinstance(entry, Mapping) or "dataset" not in entry or set(entry) - set(known):
        raise ValueError(
            f"`sources` must have `dataset` and may have {', '.join(known[1:])}, got {entry!r} in "
            f"{mixture.name!r}."
        )
    places = {
        key: str(mixture.parent / entry[key])
        for key in ("dataset", "data_dir", "mapping")
        if entry.get(key) and (key != "dataset" or (mixture.parent / entry[key]).is_dir())
    }
    return MixturePart(**{**entry, **places})


def _columns(data: PersonData, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels (images, attributes) and person numbers (images,) of one split."""
    table = data.rows(split).select_columns(["labels", "person_id"]).with_format("arrow")[:]
    labels = pa.chunked_array(table["labels"]).combine_chunks().flatten().to_numpy()
    return labels.reshape(len(table), -1), table["person_id"].to_numpy()


__all__ = ["MixtureData", "MixturePart", "mixture_schema"]
