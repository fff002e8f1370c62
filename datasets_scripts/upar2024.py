"""UPAR-2024: PA100K, PETA and Market-1501 labelled anew with 40 common binary attributes.

Source: Specker, Cormier and Beyerer, "UPAR: Unified Pedestrian Attribute Recognition and Person
Retrieval", WACV 2023, and the challenge of WACV 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from datasets import ClassLabel

from .market1501 import images_below
from .market1501_annotation import read_names
from .person_builder import (
    PersonDatasetBuilder,
    PersonDatasetConfig,
    PersonRecords,
    PersonSource,
)
from .person_dataset import UNKNOWN_LABEL
from .source_files import existing_folder, first_file, fullest_folder, listing
from .upar2024_annotation import UPARTable, read_table
from .verification import VerificationReport, check_names, check_sizes

# How the paths of each source begin; a test table may have images of others, those of MEVID.
SOURCES = {"market1501": "Market1501/", "pa100k": "PA100k/", "peta": "PETA/"}
_OTHER_SOURCE = "mevid"
# Where, below `data_dir`, the trees and tables may start.
_ROOTS = (".", "data")
_TABLE_FOLDERS = (
    ".",
    *("phase1", "phase2", "annotations", "annotations/phase1", "annotations/phase2"),
)
_TABLES = {
    "train": ("train/train.csv", "train.csv"),
    "validation": ("val_gt/val_gt.csv", "val_gt.csv", "val_task1/val.csv", "val.csv"),
    "test": ("test_gt/test_gt.csv", "test_gt.csv", "test/test.csv", "test.csv"),
}
# The official place of each tree first, then others where the same images are met.
_MARKET = ("Market1501", "Market1501/Market-1501-v15.09.15", "Market-1501-v15.09.15", "market1501")
_FLAT_TREES = {
    "PA100k/release_data/release_data": (
        r"\d{6}\.jpg",
        *(f"{name}/{tree}" for name in ("PA100k", "PA100K", "pa100k") for tree in ("data", ".")),
        *(f"{name}/release_data/release_data" for name in ("PA100k", "PA100K", "pa100k")),
    ),
    "PETA/images": (r"\d{5}\.png", "PETA/images", "peta/images"),
}


class UPAR2024(PersonDatasetBuilder):
    """Builder of UPAR-2024.

    Splits: train and validation as published, where validation consists of the test parts of the
    three sources; test, if there is a table for it (MEVID, which is not public). Column `source`
    names the older data set. Persons and cameras are known for Market-1501 alone.

    Configurations `default`; `without_<source>`, which trains on two sources and validates on the
    third; `only_<source>`, which trains on one and validates on the others. Where only the list of
    validation images is there (val.csv), its labels are unknown.
    """

    BUILDER_CONFIGS = [
        PersonDatasetConfig(name=name, version=PersonDatasetBuilder.VERSION)
        for name in ("default", *(f"{k}_{s}" for k in ("without", "only") for s in SOURCES))
    ]
    DEFAULT_CONFIG_NAME = "default"

    code_files = (
        "market1501.py",
        "market1501_annotation.py",
        "upar2024.py",
        "upar2024_annotation.py",
    )
    schema_name = "upar"
    extra_features = {"source": ClassLabel(names=[*SOURCES, _OTHER_SOURCE])}
    label_values = (0, 1, UNKNOWN_LABEL)
    split_sizes = {"train": 97670, "validation": 33407}
    validation_sources = {"market1501": 16458, "pa100k": 9986, "peta": 6963}
    homepage = "https://github.com/speckean/upar_challenge"
    license_terms = (
        "annotations CC BY-NC-SA 3.0 DE; images on the terms of Market-1501, PA100K and PETA"
    )
    citation = (
        "A. Specker, M. Cormier, J. Beyerer: UPAR: Unified Pedestrian Attribute Recognition and "
        "Person Retrieval. WACV, 2023. M. Cormier, A. Specker, J. C. S. Jacques Junior, L. "
        "Florin, J. Metzler, T. B. Moeslund, K. Nasrollahi, S. Escalera, J. Beyerer: UPAR "
        "Challenge: Pedestrian Attribute Recognition and Attribute-Based Person Retrieval. "
        "WACV Workshops, 2023."
    )
    manual_download_instructions = (
        "UPAR-2024 is not downloaded: images and annotations are asked for, and the images "
        f"brought into this tree, as {homepage} says. Expected in `data_dir`, or in `data` in it: "
        "`phase1/train/train.csv`, `annotations/val_gt/val_gt.csv`, and the images in "
        "`Market1501/bounding_box_test` and its like, `PA100k/release_data/release_data` and "
        "`PETA/images`."
    )
    _made_sizes: dict[str, int] | None = None

    @classmethod
    def find_source(cls, data_dir: str | None) -> PersonSource:
        """Find the tables and the three image trees, wherever each of them starts."""
        folder = existing_folder(data_dir, cls.manual_download_instructions)
        tables = {split: _find_table(folder, split) for split in _TABLES}
        images = _published_images(folder)
        if tables["train"] is None or tables["validation"] is None or not images:
            counts = np.bincount(_sources(list(images)), minlength=len(SOURCES))
            found = ", ".join(f"{n} of {s}" for s, n in zip(SOURCES, counts, strict=False))
            raise FileNotFoundError(
                f"`data_dir` must hold train.csv ({_was_found(tables['train'])}), val_gt.csv "
                f"({_was_found(tables['validation'])}) and the images ({found}), got "
                f"{data_dir!r} with {listing(folder)}. {cls.manual_download_instructions}"
            )
        if tables["test"] is not None:
            images |= _other_images(folder, tables["test"])
        return PersonSource([path for path in tables.values() if path is not None], images)

    def published_sizes(self) -> dict[str, int]:
        """Images of each split; those of a configuration are known once the tables are read."""
        return self.split_sizes if self._made_sizes is None else self._made_sizes

    def read_records(self, source: PersonSource, report: VerificationReport) -> PersonRecords:
        """Read the tables and divide them as the configuration says."""
        num_attributes = self.schema().num_attributes
        tables = {
            split: read_table(path, num_attributes)
            for split, path in zip(_TABLES, source.annotations, strict=False)
        }
        names = list(chain.from_iterable(table.image_names for table in tables.values()))
        sources = _sources(names)
        rows = _whole_splits(tables)
        report.errors += self._check(tables, names, sources[rows["validation"]])
        splits = self._divided(rows, sources)
        self._made_sizes = {split: len(part) for split, part in splits.items()}
        person_ids, cameras, _ = read_names(names).T
        return PersonRecords(
            image_names=names,
            image_paths=[source.images.get(name) for name in names],
            labels=np.concatenate([table.labels for table in tables.values()]),
            person_ids=person_ids,
            splits=splits,
            cameras=cameras,
            extra={"source": sources},
        )

    def _divided(self, rows: dict[str, np.ndarray], sources: np.ndarray) -> dict[str, np.ndarray]:
        kind, _, source = self.config.name.partition("_")
        if not source:
            return rows
        is_source = sources == list(SOURCES).index(source)
        is_trained = is_source if kind == "only" else ~is_source
        train, validation = rows["train"], rows["validation"]
        return {
            **rows,
            "train": train[is_trained[train]],
            "validation": validation[~is_trained[validation]],
        }

    def _check(
        self, tables: dict[str, UPARTable], names: Sequence[str], validation_sources: np.ndarray
    ) -> list[str]:
        errors = []
        for split, table in tables.items():
            if table.attributes is not None:
                wrong = check_names(table.attributes, self.schema().attributes)
                errors += [f"table of `{split}`: {error}" for error in wrong]
        sizes = {split: len(tables[split].image_names) for split in self.split_sizes}
        errors += check_sizes(sizes, self.split_sizes, "split")
        counts = np.bincount(validation_sources, minlength=len(SOURCES) + 1)
        found = dict(zip([*SOURCES, _OTHER_SOURCE], counts.tolist(), strict=True))
        errors += check_sizes(found, self.validation_sources, "source of validation")
        if len(set(names)) < len(names):
            errors.append(f"{len(names) - len(set(names))} image(s) come twice")
        return errors


def _find_table(folder: Path, split: str) -> Path | None:
    """The best form of a table that there is: labels count for more than the place."""
    places = [folder / root / place for root in _ROOTS for place in _TABLE_FOLDERS]
    return next(filter(None, (first_file(places, name) for name in _TABLES[split])), None)


def _was_found(path: Path | None) -> str:
    return "not found" if path is None else "found"


def _published_images(folder: Path) -> dict[str, Path]:
    """Find the three trees: path as in the tables -> file."""
    roots = [folder / root for root in _ROOTS]
    market = max((images_below(root / place) for root in roots for place in _MARKET), key=len)
    images = {f"{SOURCES['market1501']}{name}": path for name, path in market.items()}
    for tree, (pattern, *places) in _FLAT_TREES.items():
        found = fullest_folder([root / place for root in roots for place in places], pattern)
        images |= {f"{tree}/{name}": path for name, path in found.items()}
    return images


def _other_images(folder: Path, table: Path) -> dict[str, Path]:
    """Find the images of a table that belong to none of the three trees."""
    names = read_table(table, 0).image_names
    others = [name for name in names if not name.startswith(tuple(SOURCES.values()))]
    roots = [folder / root for root in _ROOTS]
    found = {name: first_file(roots, name) for name in others}
    return {name: path for name, path in found.items() if path is not None}


def _sources(names: Sequence[str]) -> np.ndarray:
    """(images,) position of each image's source; the last is that of all others."""
    prefixes = list(SOURCES.values())
    places = {prefix: place for place, prefix in enumerate(prefixes)}
    starts = (name.partition("/")[0] + "/" for name in names)
    return np.array([places.get(start, len(prefixes)) for start in starts], dtype=np.int64)


def _whole_splits(tables: dict[str, UPARTable]) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(table.image_names) for table in tables.values()])
    return dict(zip(tables, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))


__all__ = ["SOURCES", "UPAR2024"]
