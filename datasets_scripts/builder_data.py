"""Data sets that have a builder, opened from their official download."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset

from .person_data import PersonData, Terms
from .person_dataset import BUILDERS

# Licences that let anyone publish the images again; all others are "other".
_HUB_LICENSES = {"pa100k": "cc-by-4.0", "synthetic": "apache-2.0"}


class BuilderData(PersonData):
    """A builder and its tables, which it makes from verified files on the first use.

    Args:
        name: One of BUILDERS. options: Of the builder.
    """

    def __init__(
        self,
        name: str,
        data_dir: str | Path | None,
        config_name: str | None,
        cache_dir: str | Path | None,
        options: Mapping[str, object],
    ):
        module, builder_class = BUILDERS[name]
        make = getattr(importlib.import_module(module, __package__), builder_class)
        self.builder = make(
            cache_dir=cache_dir and str(cache_dir),
            data_dir=data_dir,
            config_name=config_name,
            **options,
        )
        self.builder.download_and_prepare()
        self.name, self.schema = name, make.schema()
        self.config_name = self.builder.config.name
        info = self.builder.info
        self.terms = Terms(
            license=info.license or "not stated",
            hub_license=_HUB_LICENSES.get(name, "other"),
            citation=info.citation,
            homepage=info.homepage,
        )

    @property
    def split_sizes(self) -> dict[str, int]:
        """Split -> number of rows."""
        return {name: split.num_examples for name, split in self.builder.info.splits.items()}

    def rows(self, split: str) -> Dataset:
        """All rows of one split."""
        return self.builder.as_dataset(split=split)


__all__ = ["BuilderData"]
