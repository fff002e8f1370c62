"""PETA's files: the annotation PETA.mat, and which original file bears which image number."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat

ANNOTATION_FILE = "PETA.mat"
MAPPING_FILE = "peta_file_mapping.txt"
MAPPING_HOME = "https://github.com/speckean/upar_challenge"
_LABEL_COLUMN = 4  # before it: image number, person, sub-set, person inside the sub-set
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
# In the order of the sub-set ids 1 to 10.
SUBSET_SIZES = {
    "3DPeS": 1012,
    "CAVIAR4REID": 1220,
    "CUHK": 4563,
    "GRID": 1275,
    "i-LID": 477,
    "MIT": 888,
    "PRID": 1134,
    "SARC3D": 200,
    "TownCentre": 6967,
    "VIPeR": 1264,
}
SUBSETS = tuple(SUBSET_SIZES)


@dataclass(frozen=True)
class PETAAnnotation:
    """The content of PETA.mat, counted from 0 where the file counts rows and columns from 1.

    Args:
        attributes: Names of the label columns.
        person_ids: (images,), 1 to 8,699.
        subset_ids: (images,), 0 to 9, positions in SUBSETS.
        local_person_ids: (images,) number of the person inside its sub-set.
        labels: (images, attributes), whatever the file holds; 0 and 1 are not checked here.
        evaluated: Names of the attributes that papers evaluate.
        partitions: For each of the five, split name -> (images of the split,) row numbers.
    """

    attributes: list[str]
    person_ids: np.ndarray
    subset_ids: np.ndarray
    local_person_ids: np.ndarray
    labels: np.ndarray
    evaluated: list[str]
    partitions: list[dict[str, np.ndarray]]

    def subset_and_person(self, number: int) -> tuple[str, int]:
        """Name the sub-set of an image, counted from 1, and its person inside that sub-set."""
        return SUBSETS[self.subset_ids[number - 1]], int(self.local_person_ids[number - 1])


def read_annotation(path: Path) -> PETAAnnotation:
    """Read PETA.mat.

    Raises:
        ValueError: It is no MATLAB file of this structure, or its rows are not images 1, 2, 3, ...
    """
    try:
        struct = loadmat(path, simplify_cells=True)["peta"]
        data = np.asarray(struct["data"], dtype=np.int64)  # (images, 4 + attributes)
        attributes = [str(name) for name in np.atleast_1d(struct["attribute"])]
        # Counted from 1 among the columns of `data`.
        evaluated = [
            attributes[column - _LABEL_COLUMN - 1]
            for column in np.atleast_1d(struct["selected_attribute"]).astype(np.int64)
        ]
        # `partion` is the file's own spelling.
        partitions = [_read_partition(part) for part in np.atleast_1d(struct["partion_attribute"])]
    # A damaged file makes the reader fail in many ways: zlib, index, key and type errors.
    except Exception as error:
        raise ValueError(
            f"`{path}` must be the official PETA annotation, got: {error!r}."
        ) from error
    if len(partitions) != 5 or data.shape[1:] != (_LABEL_COLUMN + len(attributes),):
        raise ValueError(
            f"`{path}` must have 5 partitions, and {_LABEL_COLUMN} columns before one for each of "
            f"its {len(attributes)} attributes, got {len(partitions)} and shape {data.shape}."
        )
    numbers, person_ids, subset_ids, local_person_ids = data[:, :_LABEL_COLUMN].T
    if not np.array_equal(numbers, np.arange(1, len(data) + 1)):
        raise ValueError(f"`{path}` must list images 1 to {len(data)} in its first column.")
    if subset_ids.min() < 1 or subset_ids.max() > len(SUBSETS):
        raise ValueError(f"`{path}` must have sub-sets 1 to {len(SUBSETS)} in its third column.")
    return PETAAnnotation(
        attributes=attributes,
        person_ids=person_ids,
        subset_ids=subset_ids - 1,
        local_person_ids=local_person_ids,
        labels=data[:, _LABEL_COLUMN:],
        evaluated=evaluated,
        partitions=partitions,
    )


def _read_partition(part: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        split: np.atleast_1d(part[name]).astype(np.int64) - 1 for split, name in _SPLITS.items()
    }


def read_mapping(path: Path) -> dict[int, str]:
    """Read which original file bears which image number.

    Returns:
        Image number -> `<sub-set>/archive/<file>`.

    Raises:
        ValueError: A line has another form, or a number comes twice.
    """
    files: dict[int, str] = {}
    for line_number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        # File names hold spaces and commas; only the last comma divides.
        original, _, target = line.rpartition(",")
        match = re.fullmatch(r".*/(\d+)\.png", target.strip())
        parts = original.split("/")[-3:]
        if match is None or len(parts) != 3 or int(match[1]) in files:
            raise ValueError(
                f"`{path}` must have lines like `PETA/PETA dataset/<sub-set>/archive/<file>,"
                f"PETA/images/00001.png`, each number once, got {line!r} in line {line_number}."
            )
        files[int(match[1])] = "/".join(parts)
    return files


def derive_mapping(annotation: PETAAnnotation, files: Sequence[str]) -> dict[int, str]:
    """Find out which original file bears which image number, without the mapping file.

    A file name starts with the number of the person inside the sub-set, and the images of a person
    are numbered in the order of their names. Persons whose number of files differs from their
    number of images are left out: nothing says which image is missing.

    Args:
        annotation: Of the whole data set.
        files: `<sub-set>/archive/<file>` of the images that are there.

    Returns:
        Image number -> file.
    """
    files_of = defaultdict(list)
    for file in sorted(files):
        files_of[_subset_and_person(file)].append(file)
    numbers_of = defaultdict(list)
    for number in range(1, len(annotation.labels) + 1):
        numbers_of[annotation.subset_and_person(number)].append(number)
    return {
        number: file
        for person, numbers in numbers_of.items()
        if len(numbers) == len(files_of[person])
        for number, file in zip(numbers, files_of[person], strict=True)
    }


def check_mapping(files: Mapping[int, str], annotation: PETAAnnotation) -> list[str]:
    """Compare the sub-set and the person in each file name with the annotation."""
    errors = []
    numbers = range(1, len(annotation.labels) + 1)
    if set(files) != set(numbers):
        errors.append(f"{MAPPING_FILE} must number the images 1 to {len(numbers)}, each once")
    for number in set(files).intersection(numbers):
        expected = annotation.subset_and_person(number)
        if _subset_and_person(files[number]) != expected:
            errors.append(
                f"{MAPPING_FILE} gives image {number} the file {files[number]}, but it shows "
                f"person {expected[1]} of {expected[0]}"
            )
    return errors


def _subset_and_person(file: str) -> tuple[str, int] | None:
    """Read both from `<sub-set>/archive/<person><rest>`; None if the file has another name."""
    match = re.fullmatch(r"([^/]+)/archive/(\d+)[^/]*", file)
    return None if match is None else (match[1], int(match[2]))


__all__ = [
    "ANNOTATION_FILE",
    "MAPPING_FILE",
    "MAPPING_HOME",
    "SUBSETS",
    "SUBSET_SIZES",
    "PETAAnnotation",
    "check_mapping",
    "derive_mapping",
    "read_annotation",
    "read_mapping",
]
