"""A user's own data: a folder of images with any attribute columns, as a person data set.

Everything is read anew each time, so that an edited table counts at once.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from datasets import Dataset

from ..attributes_clear import AttributeSchema
from .own_schema import declared_schema
from .own_tables import SPLIT_NAMES, OwnTable, read_tables, split_of_file
from .person_data import PersonData
from .person_dataset import UNKNOWN_CAMERA, UNKNOWN_LABEL, UNKNOWN_PERSON, person_features
from .retrieval_protocols import category_ids
from .verification import check_images

logger = logging.getLogger(__name__)

SCHEMA_FILE = "schema.json"
_RESERVED = ("file_name", "image", "image_name", "person_id", "camera", "split")
_COMPUTED = ("labels", "category_id")
_SPLIT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
_NOBODY = ("", "-1", "-1.0", "nan", "none")  # person or camera that is unknown
_LABELS = {
    **dict.fromkeys(("1", "1.0", "true"), 1),
    **dict.fromkeys(("0", "0.0", "false"), 0),
    **dict.fromkeys(("", "-1", "-1.0", "-100", "nan", "none"), UNKNOWN_LABEL),
}


@dataclass(frozen=True)
class _Records:
    """All rows of all tables, in order. images: a path or {"path", "bytes"} each."""

    images: list
    names: list[str]
    labels: np.ndarray
    person_ids: np.ndarray
    cameras: np.ndarray
    splits: np.ndarray

    def table(self, split: str, schema: AttributeSchema) -> Dataset:
        """The rows of one split."""
        rows = np.flatnonzero(self.splits == split)
        categories = category_ids(self.labels)
        columns = {
            "image": [self.images[row] for row in rows],
            "labels": self.labels[rows].tolist(),
            "person_id": self.person_ids[rows],
            "camera": self.cameras[rows],
            "image_name": [self.names[row] for row in rows],
            "category_id": categories[rows],
        }
        return Dataset.from_dict(columns, features=person_features(schema))


class OwnData(PersonData):
    """A folder of images with metadata; see "Your own data" in README.md.

    Raises: ValueError: something in the folder is wrong; the message names place and remedy.
    """

    def __init__(self, folder: str | Path):
        root = Path(folder).expanduser()
        self.name = root.resolve().name
        tables = read_tables(root)
        self.schema = _schema(root, tables)
        self._records = _read_records(root, tables, self.schema)

    @property
    def split_sizes(self) -> dict[str, int]:
        """Split -> number of rows, in the order train, validation, test."""
        splits = self._records.splits.tolist()
        return {s: splits.count(s) for s in _SPLIT_SHARES if s in splits}

    def rows(self, split: str) -> Dataset:
        """All rows of one split."""
        return self._records.table(split, self.schema)

    def broken_images(self) -> dict[str, str]:
        """Decode every image file; image name -> defect."""
        found = zip(self._records.names, self._records.images, strict=True)
        return check_images({name: Path(i) for name, i in found if isinstance(i, str)})


def own_schema(folder: str | Path) -> AttributeSchema:
    """The schema of a folder of your own data: schema.json, or the names of the columns."""
    root = Path(folder).expanduser()
    return _schema(root, read_tables(root))


def _schema(root: Path, tables: Sequence[OwnTable]) -> AttributeSchema:
    columns = dict.fromkeys(name for table in tables for name in table.columns)
    if computed := [name for name in _COMPUTED if name in columns]:
        raise ValueError(
            f"`{computed[0]}` must not be a column, got it in {str(root)!r}: it is computed. "
            "Remove it; attributes are columns of their own."
        )
    names = [name for name in columns if name not in _RESERVED]
    path = root / SCHEMA_FILE
    if not path.is_file():
        if not names:
            raise ValueError(f"`dataset` must have an attribute column, got none in {str(root)!r}.")
        return AttributeSchema.from_names(names, root.resolve().name)
    schema = declared_schema(path, names, root.resolve().name)
    unknown = sorted(set(names) - set(schema.attributes))
    lacking = sorted(set(schema.attributes) - set(names))
    if unknown or lacking:
        raise ValueError(
            f"columns must be {', '.join(_RESERVED)} or the attributes of {SCHEMA_FILE}, got "
            f"unknown columns {unknown}, attributes without a column {lacking}. Correct the names, "
            f"or declare the columns in {SCHEMA_FILE}."
        )
    return schema


def _read_records(root: Path, tables: Sequence[OwnTable], schema: AttributeSchema) -> _Records:
    images, names, splits = [], [], []
    for table in tables:
        found, named = _images(root, table)
        images += found
        names += named
        splits += _stated_splits(root, table, named)
    seen: set[str] = set()
    if twice := [name for name in names if name in seen or seen.add(name)]:
        raise ValueError(f"`file_name` must be unique, got {twice[0]!r} twice. Remove one row.")
    persons = _codes([v for t in tables for v in _column(t, "person_id")], UNKNOWN_PERSON)
    if not all(splits):
        splits = _made_splits(splits, persons, names)
    return _Records(
        images=images,
        names=names,
        labels=_labels(root, tables, schema),
        person_ids=persons,
        cameras=_codes([v for t in tables for v in _column(t, "camera")], UNKNOWN_CAMERA),
        splits=np.array(splits, dtype=object),
    )


def _column(table: OwnTable, name: str) -> Sequence[object]:
    return table.columns.get(name, [None] * len(table))


def _place(root: Path, table: OwnTable, row: int) -> str:
    return f"row {row + 1} of {table.path.relative_to(root).as_posix()}"


# ---- images -----------------------------------------------------------------------------------


def _images(root: Path, table: OwnTable) -> tuple[list, list[str]]:
    """Image and unique name of every row."""
    if "image" in table.columns:
        return _embedded_images(root, table)
    if "file_name" not in table.columns:
        raise ValueError(
            f"`file_name` must be a column of {table.path.relative_to(root).as_posix()}, got "
            f"{list(table.columns)}. It says which image a row is about."
        )
    base, images, names = table.path.parent, [], []
    for row, file_name in enumerate(table.columns["file_name"]):
        inside = PurePosixPath(str(file_name or ""))
        if inside.is_absolute() or ".." in inside.parts or not inside.name:
            raise ValueError(
                f"`file_name` must be a path inside {base.name!r}, got {file_name!r} in "
                f"{_place(root, table, row)}."
            )
        path = base / inside
        if not path.is_file():
            raise ValueError(
                f"`file_name` must name an image, got {file_name!r} in "
                f"{_place(root, table, row)}, and there is no such file. Add it or remove the row."
            )
        images.append(str(path))
        names.append(path.relative_to(root).as_posix())
    return images, names


def _embedded_images(root: Path, table: OwnTable) -> tuple[list, list[str]]:
    images, names = [], []
    for row, image in enumerate(table.columns["image"]):
        image = image if isinstance(image, dict) else {"bytes": image, "path": None}
        if not isinstance(image.get("bytes"), bytes):
            raise ValueError(
                f"`image` must hold the bytes of a picture file, got none in "
                f"{_place(root, table, row)}. Embed the images before writing Parquet."
            )
        given = _column(table, "image_name")[row] or _column(table, "file_name")[row]
        path = table.path.relative_to(root).with_suffix("").as_posix()
        names.append(str(given or f"{path}/{row:06d}"))
        images.append({"bytes": image["bytes"], "path": PurePosixPath(names[-1]).name})
    return images, names


# ---- labels, persons, cameras -----------------------------------------------------------------


def _labels(root: Path, tables: Sequence[OwnTable], schema: AttributeSchema) -> np.ndarray:
    """(images, attributes) of 1, 0 and -100."""
    parts = [
        np.array([_column_labels(root, table, name) for name in schema.attributes], np.int8).T
        for table in tables
    ]
    labels = np.concatenate(parts)
    is_known = (labels >= 0).any(axis=0)
    empty = [name for name, known in zip(schema.attributes, is_known, strict=True) if not known]
    if empty:
        raise ValueError(
            f"every attribute must be known of some image, got nothing but unknown for "
            f"{', '.join(empty)}. Label it, or remove the column."
        )
    return labels


def _column_labels(root: Path, table: OwnTable, name: str) -> list[int]:
    values = _column(table, name)
    labels = [_LABELS.get("" if v is None else str(v).strip().lower()) for v in values]
    if None in labels:
        row = labels.index(None)
        raise ValueError(
            f"`{name}` must be 1, 0, true, false, or empty or -1 for unknown, got {values[row]!r} "
            f"in {_place(root, table, row)}. Make one such column of each value of a choice, and "
            "remove columns that are no attribute."
        )
    return labels


def _codes(values: Sequence[object], unknown: int) -> np.ndarray:
    """Whole numbers as they are; other names numbered by first appearance; blank: unknown."""
    texts = ["" if v is None else str(v).strip() for v in values]
    known = list(dict.fromkeys(text for text in texts if text.lower() not in _NOBODY))
    are_numbers = all(re.fullmatch("0|[1-9][0-9]{,8}", text) for text in known)
    code = {text: int(text) if are_numbers else i for i, text in enumerate(known)}
    return np.array([code.get(text, unknown) for text in texts], dtype=np.int32)


# ---- splits -----------------------------------------------------------------------------------


def _stated_splits(root: Path, table: OwnTable, names: Sequence[str]) -> list[str | None]:
    if table.split is not None:
        return [table.split] * len(table)
    if "split" not in table.columns:
        return [split_of_file(name) for name in names]
    splits = [SPLIT_NAMES.get(str(v).strip().lower()) for v in table.columns["split"]]
    if None in splits:
        row = splits.index(None)
        raise ValueError(
            f"`split` must be train, validation or test, got {table.columns['split'][row]!r} in "
            f"{_place(root, table, row)}."
        )
    return splits


def _made_splits(splits: Sequence[str | None], persons: np.ndarray, names: Sequence[str]) -> list:
    """Divide by person, or by image where no person is known, the same way each time."""
    if any(splits):
        row = [*map(bool, splits)].index(False)
        raise ValueError(
            f"every image or none must say its split, got none for {names[row]!r}. Add a column "
            "`split`, or put each image into the folder of its split."
        )
    units = [n if p == UNKNOWN_PERSON else str(p) for p, n in zip(persons, names, strict=True)]
    order = sorted(set(units), key=lambda unit: hashlib.sha256(unit.encode()).digest())
    if len(order) < len(_SPLIT_SHARES):
        raise ValueError(
            f"`dataset` must have at least {len(_SPLIT_SHARES)} persons or images to be divided "
            f"into splits, got {len(order)}. Add a column `split`."
        )
    num_other = {s: max(1, round(len(order) * _SPLIT_SHARES[s])) for s in ("test", "validation")}
    counts = {"train": len(order) - sum(num_other.values()), **num_other}
    drawn = [split for split, count in counts.items() for _ in range(count)]
    split_of = dict(zip(order, drawn, strict=True))
    made = [split_of[unit] for unit in units]
    by = "image" if (persons == UNKNOWN_PERSON).all() else "person_id"
    sizes = ", ".join(f"{made.count(split)} {split}" for split in _SPLIT_SHARES)
    logger.warning("No split is stated; images are divided by %s: %s.", by, sizes)
    return made


__all__ = ["SCHEMA_FILE", "OwnData", "own_schema"]
