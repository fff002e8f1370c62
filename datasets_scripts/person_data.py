"""What an opened person data set offers, wherever its rows come from."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset, ReadInstruction, concatenate_datasets

from ..attributes_clear import AttributeSchema

_SPLIT = re.compile(r"(?P<name>[^\[\]]+)(?P<slice>(\[[^\[\]]*\])?)")


@dataclass(frozen=True)
class Terms:
    """Under what conditions a data set is used.

    Args:
        license: In words. hub_license: The Hub's identifier of a licence that allows to publish
            the data again; "other" for every other one.
    """

    license: str = "not stated"
    hub_license: str = "other"
    citation: str = ""
    homepage: str = ""

    @property
    def may_be_published(self) -> bool:
        """True if the licence lets anyone publish the images again."""
        return self.hub_license != "other"


class PersonData(ABC):
    """A person data set: its schema, its splits and their rows.

    Args:
        name: Of the data set, without folders. schema: Meaning and order of `labels`.
    """

    name: str
    config_name: str = "default"
    schema: AttributeSchema
    terms = Terms()

    @property
    @abstractmethod
    def split_sizes(self) -> dict[str, int]:
        """Split -> number of rows."""

    @property
    def own_splits(self) -> list[str]:
        """Splits that are no part of a mixture's."""
        return [split for split in self.split_sizes if ":" not in split]

    @abstractmethod
    def rows(self, split: str) -> Dataset:
        """All rows of one split, with the columns of `person_features`."""

    def broken_images(self) -> dict[str, str]:
        """Image name -> defect; empty where building the rows has verified them."""
        return {}

    def load(self, split: str) -> Dataset:
        """Rows of a split, a slice "test[:100]", or several joined by "+".

        Args: split: "trainval" is train and validation where the data set has no such split.
        Raises: ValueError: `split` names none of the splits, or no rows.
        """
        sizes = self._all_sizes()
        # The library's slices know only plain names; a mixture has "peta:test" as well.
        plain = {name: f"split{number}" for number, name in enumerate(sizes)}
        parts = [_SPLIT.fullmatch(part.strip()) for part in split.split("+")]
        if not all(part and part["name"] in sizes for part in parts):
            raise ValueError(
                f"`split` must be made of the splits of {self.name!r}, {', '.join(sizes)}, got "
                f"{split!r}."
            )
        spans = ReadInstruction.from_spec("+".join(plain[p["name"]] + p["slice"] for p in parts))
        absolute = spans.to_absolute({plain[name]: size for name, size in sizes.items()})
        found = [
            self._span(part["name"], span.from_, span.to)
            for part, span in zip(parts, absolute, strict=True)
        ]
        if not any(map(len, found)):
            raise ValueError(f"`split` must have rows, got no data in {split!r} of {self.name!r}.")
        return joined(found)

    def _all_sizes(self) -> dict[str, int]:
        sizes = dict(self.split_sizes)
        for train, size in self.split_sizes.items():
            start = train.removesuffix("train")
            if train == f"{start}train" and f"{start}validation" in sizes:
                sizes.setdefault(f"{start}trainval", size + sizes[f"{start}validation"])
        return sizes

    def _span(self, split: str, start: int, stop: int) -> Dataset:
        if split in self.split_sizes:
            rows = self.rows(split)
        else:
            both = (split.removesuffix("val"), f"{split.removesuffix('trainval')}validation")
            rows = joined([self.rows(part) for part in both])
        return rows if (start, stop) == (0, len(rows)) else rows.select(range(start, stop))


def joined(parts: Sequence[Dataset]) -> Dataset:
    """One table after the other."""
    return parts[0] if len(parts) == 1 else concatenate_datasets(list(parts))


__all__ = ["PersonData", "Terms", "joined"]
