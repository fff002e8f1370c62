"""UPAR-2024's files: tables of image paths and labels, whose headers have several forms."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .person_dataset import UNKNOWN_LABEL

# First cells of a header that name the column of the paths; train.csv leaves it out.
_PATH_COLUMN = ("", "image", "images", "file", "path")
_USUAL_LABELS = {"0": 0, "1": 1}


@dataclass(frozen=True)
class UPARTable:
    """One annotation file.

    Args:
        image_names: Paths as in the file, `Market1501/query/...`.
        attributes: Names of the label columns; None where the file has no header.
        labels: (images, attributes) int64, -100 throughout where the file lists images only.
    """

    image_names: list[str]
    attributes: list[str] | None
    labels: np.ndarray


def read_table(path: Path, num_attributes: int) -> UPARTable:
    """Read train.csv, val_gt.csv, val.csv or a table of the same kind.

    The header of train.csv names only the 40 attributes although its rows begin with a path, that
    of val_gt.csv names both, and val.csv has neither header nor labels.

    Args:
        path: Of the file.
        num_attributes: Labels of a row where the file has none.

    Raises:
        ValueError: Rows differ in length, or a label is no whole number; the message names the
            line.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [(k, row) for k, row in enumerate(csv.reader(file), start=1) if row]
    attributes = None
    if lines and _is_header(lines[0][1]):
        attributes = _attributes(lines.pop(0)[1])
    if not lines:
        raise ValueError(f"`{path}` must list images, got none.")
    width = len(lines[0][1])
    for number, row in lines:
        if len(row) != width:
            raise ValueError(
                f"`{path}` must have {width} cells in every row, got {len(row)} in line {number}."
            )
    names = [row[0].strip() for _, row in lines]
    if width == 1:
        labels = np.full((len(lines), num_attributes), UNKNOWN_LABEL, dtype=np.int64)
    else:
        labels = _labels(path, lines)
    return UPARTable(names, attributes or None, labels)


def _is_header(row: Sequence[str]) -> bool:
    """A row of the table begins with a path, and numbers follow."""
    return "/" not in row[0] or any(not _is_number(cell) for cell in row[1:])


def _attributes(header: Sequence[str]) -> list[str]:
    names = [cell.strip().removeprefix("#").strip() for cell in header]
    return names[1:] if names[0] in _PATH_COLUMN else names


def _labels(path: Path, lines: Sequence[tuple[int, list[str]]]) -> np.ndarray:
    values = dict(_USUAL_LABELS)
    labels = np.empty((len(lines), len(lines[0][1]) - 1), dtype=np.int64)
    for place, (number, row) in enumerate(lines):
        for cell in set(row[1:]).difference(values):
            if not _is_number(cell) or not float(cell).is_integer():
                raise ValueError(
                    f"`{path}` must have whole numbers as labels, got {cell!r} in line {number}."
                )
            values[cell] = int(float(cell))
        labels[place] = [values[cell] for cell in row[1:]]
    return labels


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


__all__ = ["UPARTable", "read_table"]
