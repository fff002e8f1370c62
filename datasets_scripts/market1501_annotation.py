"""Market-1501's files: the attributes of its persons, and what the image names tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from .person_dataset import UNKNOWN_PERSON

ANNOTATION_FILE = "market_attribute.mat"
JUNK, DISTRACTOR = UNKNOWN_PERSON, 0  # persons of images that are nobody's
# The usual names of the four ages, whose codes are 1 to 4; all other fields hold 1 or 2.
AGES = ("young", "teenager", "adult", "old")
# A few published names end in .jpg twice.
IMAGE_NAME = r"(-1|\d{4})_c(\d)s(\d)_\d{6}_\d{2}\.jpg(\.jpg)?"


@dataclass(frozen=True)
class PersonLabels:
    """The persons of one part of market_attribute.mat, train or test.

    Args:
        person_ids: (persons,), as in the image names.
        labels: (persons, attributes) in {0, 1}.
        errors: What is wrong with the codes and the persons.
    """

    person_ids: np.ndarray
    labels: np.ndarray
    errors: list[str] = field(default_factory=list)

    def of(self, person_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up persons.

        Returns:
            Their labels, 0 for a person without attributes, and (persons,) bool, true where known.
        """
        order = np.argsort(self.person_ids, kind="stable")
        places = np.searchsorted(self.person_ids, person_ids, sorter=order)
        rows = order[np.minimum(places, len(order) - 1)]
        is_known = self.person_ids[rows] == person_ids
        return np.where(is_known[:, None], self.labels[rows], 0), is_known


def read_annotation(path: Path, attributes: Sequence[str]) -> dict[str, PersonLabels]:
    """Read market_attribute.mat by the names of its fields, whose order differs between the parts.

    Args:
        path: Of the file.
        attributes: Names of the label columns: the four ages, and fields of the file.

    Returns:
        "train" and "test" -> PersonLabels.

    Raises:
        ValueError: It is no MATLAB file of this structure, or has other fields.
    """
    try:
        struct = loadmat(path, simplify_cells=True)["market_attribute"]
        parts = {part: dict(struct[part]) for part in ("train", "test")}
        ids = {part: _person_ids(parts[part].pop("image_index")) for part in parts}
        codes = {
            part: {name: np.atleast_1d(column).astype(np.int64) for name, column in fields.items()}
            for part, fields in parts.items()
        }
    # A damaged file makes the reader fail in many ways: zlib, index, key and type errors.
    except Exception as error:
        raise ValueError(
            f"`{path}` must be the official Market-1501 annotation, got: {error!r}."
        ) from error
    wanted = {"age", *attributes} - set(AGES)
    for part, fields in codes.items():
        if set(fields) != wanted or any(len(c) != len(ids[part]) for c in fields.values()):
            raise ValueError(
                f"`{path}` must have, in `{part}`, one code for each of its {len(ids[part])} "
                f"persons in the {len(wanted)} fields of the published file, got other numbers, "
                f"or missing or strange fields: {sorted(wanted ^ set(fields))}."
            )
    return {part: _labels(part, ids[part], fields, attributes) for part, fields in codes.items()}


def _person_ids(names: object) -> np.ndarray:
    return np.array([int(name) for name in np.atleast_1d(names)], dtype=np.int64)


def _labels(
    part: str, ids: np.ndarray, codes: Mapping[str, np.ndarray], attributes: Sequence[str]
) -> PersonLabels:
    columns = {name: column - 1 for name, column in codes.items()}
    columns |= {age: codes["age"] == code for code, age in enumerate(AGES, start=1)}
    errors = [f"person {ids[k]:04d} comes twice in `{part}`" for k in _repeated(ids)]
    for name, column in codes.items():
        highest = len(AGES) if name == "age" else 2
        wrong = np.flatnonzero((column < 1) | (column > highest))
        if wrong.size:
            errors.append(
                f"`{name}` of `{part}` must be 1 to {highest}, got "
                f"{np.unique(column[wrong]).tolist()} for {len(wrong)} person(s): "
                f"{', '.join(f'{ids[k]:04d}' for k in wrong[:5])}"
            )
    labels = np.stack([columns[name] for name in attributes], axis=1).clip(0, 1).astype(np.int8)
    return PersonLabels(ids, labels, errors)


def _repeated(ids: np.ndarray) -> np.ndarray:
    _, first = np.unique(ids, return_index=True)
    return np.setdiff1d(np.arange(len(ids)), first)


def read_names(names: Sequence[str]) -> np.ndarray:
    """Read person, camera and sequence of `<folder>/<person>_c<camera>s<sequence>_...`.

    Returns:
        (images, 3) int64, -1 where a name has another form.
    """
    matches = [re.fullmatch(IMAGE_NAME, name.rpartition("/")[2]) for name in names]
    rows = [(-1, -1, -1) if m is None else tuple(map(int, m.groups()[:3])) for m in matches]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


__all__ = [
    "AGES",
    "ANNOTATION_FILE",
    "DISTRACTOR",
    "IMAGE_NAME",
    "JUNK",
    "PersonLabels",
    "read_annotation",
    "read_names",
]
