"""Rows of `datasets` with their images as files: from a saved folder, a builder or the Hub."""

from pathlib import Path

import datasets
from datasets import Dataset, Image

from ..datasets_scripts.parquet_folder import repeated_splits
from ..datasets_scripts.person_dataset import (
    BUILDERS,
    UNKNOWN_CAMERA,
    UNKNOWN_PERSON,
    open_person_dataset,
)

# How the person data sets of this project say that they do not know.
UNKNOWN = {"camera": UNKNOWN_CAMERA, "person_id": UNKNOWN_PERSON}


def load_splits(images: str, split: str | None) -> dict[str, Dataset]:
    """Split -> rows; images stay files, not decoded.

    Args:
        images: folder of `save_to_disk`, name of a builder of this project ("name" or
            "name@folder" with the folder of its data), or Hub id.
        split: None: every split; of a builder those that do not only repeat others.

    Raises:
        ValueError: when nothing of that name can be loaded, or it has no such split.
    """
    name, _, folder = images.partition("@")
    try:
        if Path(images).is_dir():
            loaded = datasets.load_from_disk(images)
        elif name in BUILDERS:
            return _undecoded(_load_builder(name, folder, split))
        else:
            loaded = datasets.load_dataset(images)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = " ".join(dict.fromkeys((lines[0], lines[-1])))  # of a report: finding and remedy
        raise ValueError(
            "`images` must be a folder, a zip file, Parquet, a data set or a Hub id, got "
            f"{images!r}: {reason}"
        ) from None
    splits = loaded if isinstance(loaded, dict) else {split or "train": loaded}
    if split is not None and split not in splits:
        raise ValueError(f"`split` must be one of {sorted(splits)}, got {split!r}.")
    return _undecoded(splits if split is None else {split: splits[split]})


def known_metadata(values: dict) -> dict:
    """A row without the numbers that stand for "unknown".

    >>> known_metadata({"camera": -1, "person_id": 7, "floor": -1})
    {'camera': None, 'person_id': 7, 'floor': -1}
    """
    return {n: None if v == UNKNOWN.get(n, "") else v for n, v in values.items()}


def _load_builder(name: str, folder: str, split: str | None) -> dict[str, Dataset]:
    data = open_person_dataset(name, folder or None)
    if split is not None:
        return {split: data.load(split)}
    splits = {own: data.rows(own) for own in data.own_splits}
    names = {own: rows["image_name"][:] for own, rows in splits.items()}
    repeated = repeated_splits(names)
    return {own: rows for own, rows in splits.items() if own not in repeated}


def _undecoded(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    found = {}
    for split, rows in splits.items():
        for name, feature in rows.features.items():
            if isinstance(feature, Image):
                rows = rows.cast_column(name, Image(decode=False))
        found[split] = rows
    return found


__all__ = ["known_metadata", "load_splits"]
