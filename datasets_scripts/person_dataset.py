"""What all person data sets share: the columns of a row and one way to load.

Data sets that lie on disk share more, their verified builder, in person_builder.py.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value

from ..attributes_clear import UNKNOWN, AttributeSchema

UNKNOWN_LABEL = UNKNOWN
UNKNOWN_CAMERA = -1

# Module and class, imported only when asked for: one data set does not pay for another's imports.
_BUILDERS = {"peta": (".peta", "PETA"), "synthetic": (".synthetic", "Synthetic")}


def person_features(schema: AttributeSchema, **extra: object) -> Features:
    """Columns of one person crop, equal for every data set.

    Args:
        schema: Its `attributes` fix the length and order of `labels`.
        **extra: Further columns of one data set, appended after the common ones.

    Returns:
        image; labels (1 present, 0 absent, -100 unknown); person_id; camera (-1 unknown);
        image_name; category_id (number of the full label vector, in order of first appearance
        over the whole data set, hence equal across splits); then `extra`.
    """
    return Features(
        {
            "image": Image(),
            "labels": List(Value("int8"), length=len(schema.attributes)),
            "person_id": Value("int32"),
            "camera": Value("int32"),
            "image_name": Value("string"),
            "category_id": Value("int32"),
            **extra,
        }
    )


def load_person_dataset(
    name: str,
    data_dir: str | Path | None = None,
    split: str = "train",
    config_name: str | None = None,
    cache_dir: str | Path | None = None,
    **kwargs: object,
) -> Dataset:
    """Load one split of a person data set, building it on the first call.

    Args:
        name: "peta" or "synthetic".
        data_dir: Folder that holds the data set; not needed for "synthetic".
        split: Such as "train", "validation", "test", "trainval", or a slice like "test[:100]".
        config_name: Such as "partition0"; None for the data set's default.
        cache_dir: Where the tables are kept; None for the library's own place.
        **kwargs: Options of the builder, such as `allow_partial=True`.

    Returns:
        Rows with the columns of `person_features`.

    Raises:
        ValueError: `name` or `split` is unknown, or the data set fails its verification.
        FileNotFoundError: `data_dir` does not hold the data set.
    """
    if name not in _BUILDERS:
        raise ValueError(f"`name` must be one of {sorted(_BUILDERS)}, got {name!r}.")
    module, builder_class = _BUILDERS[name]
    builder = getattr(importlib.import_module(module, __package__), builder_class)(
        cache_dir=cache_dir and str(cache_dir), data_dir=data_dir, config_name=config_name, **kwargs
    )
    builder.download_and_prepare()
    return builder.as_dataset(split=split)


__all__ = [
    "UNKNOWN_CAMERA",
    "UNKNOWN_LABEL",
    "load_person_dataset",
    "person_features",
]
