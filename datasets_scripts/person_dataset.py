"""What all person data sets share: the columns of a row, and one way to load.

Data sets that lie on disk share more, their verified builder, in person_builder.py.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value

from ..attributes_clear import UNKNOWN, AttributeSchema
from .person_data import PersonData

UNKNOWN_LABEL = UNKNOWN
UNKNOWN_CAMERA = -1
UNKNOWN_PERSON = -1

# Module and class, imported only when asked for: one data set does not pay for another's imports.
BUILDERS = {
    "market1501": (".market1501", "Market1501"),
    "pa100k": (".pa100k", "PA100K"),
    "peta": (".peta", "PETA"),
    "rapv2": (".rapv2", "RAPv2"),
    "synthetic": (".synthetic", "Synthetic"),
    "upar2024": (".upar2024", "UPAR2024"),
}
_SCHEMAS = {"synthetic": "peta", "upar2024": "upar"}  # where the schema has another name

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def person_features(schema: AttributeSchema, **extra: object) -> Features:
    """Columns of one person crop, equal for every data set.

    Args:
        schema: Its `attributes` fix the length and order of `labels`.
        **extra: Further columns of one data set, appended after the common ones.

    Returns:
        image; labels (1 present, 0 absent, -100 unknown); person_id and camera (-1 unknown);
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


def open_person_dataset(
    name: str,
    data_dir: str | Path | None = None,
    config_name: str | None = None,
    cache_dir: str | Path | None = None,
    **options: object,
) -> PersonData:
    """Open a person data set of any kind, building its tables on the first call.

    Args:
        name: A builder ("peta", ...), the folder of a converted data set or of your own data, the
            JSON file of a mixture, or the Hub id of a converted data set ("me/peta",
            "me/peta@revision").
        data_dir: Folder of the official download, for a builder.
        config_name: Such as "partition0"; None for the data set's default.
        cache_dir: Where the tables are kept; None for the library's own place.
        **options: Of the builder, such as `allow_partial=True`.

    Raises:
        ValueError: an argument is wrong, or the data set fails its verification.
        FileNotFoundError: `data_dir` does not hold the data set.
    """
    kind = _kind(name)
    if kind == "builder":
        make = _import(".builder_data", "BuilderData")
        return make(name, data_dir, config_name, cache_dir, options)
    wrong = {"data_dir": data_dir, **options}
    if given := [key for key, value in wrong.items() if value is not None]:
        raise ValueError(
            f"`{given[0]}` must be left out for {name!r}, got {wrong[given[0]]!r}: only builders "
            f"({', '.join(BUILDERS)}) read it."
        )
    if kind == "mixture":
        return _import(".mixtures", "MixtureData")(name, cache_dir)
    if kind == "own" and config_name is None:
        return _import(".own_data", "OwnData")(name)
    if kind == "own":
        raise ValueError(f"`config_name` must be left out for your own data, got {config_name!r}.")
    return _import(".converted", f"{kind.capitalize()}Data")(name, config_name, cache_dir)


def load_person_dataset(
    name: str,
    data_dir: str | Path | None = None,
    split: str = "train",
    config_name: str | None = None,
    cache_dir: str | Path | None = None,
    **kwargs: object,
) -> Dataset:
    """Load one split of a person data set; see `open_person_dataset`.

    Args:
        split: Such as "train", "validation", "test", "trainval", "train+validation", or a slice
            like "test[:100]"; of a mixture also "peta:validation".

    Returns:
        Rows with the columns of `person_features`.
    """
    return open_person_dataset(name, data_dir, config_name, cache_dir, **kwargs).load(split)


def person_schema(name: str) -> AttributeSchema:
    """The attributes of a data set, without its rows.

    Args:
        name: As for `open_person_dataset`, or the name of a schema alone ("upar").

    Raises:
        ValueError: `name` is none of these.
    """
    path = _schema_path(name)
    if path.is_file():
        return AttributeSchema.from_json(path)
    kind = _kind(name)
    if kind == "builder":
        return _import(*BUILDERS[name]).schema()
    modules = {"own": ".own_data", "mixture": ".mixtures"}
    return _import(modules.get(kind, ".converted"), f"{kind}_schema")(name)


def require_dataset_name(name: str) -> None:
    """Raise ValueError if `name` can be no data set; nothing is read."""
    if not _schema_path(name).is_file():
        _kind(name)


def schema_names() -> list[str]:
    """Names of the schemas that come with the project."""
    return sorted(path.stem for path in _schema_path("").parent.glob("*.json"))


def _schema_path(name: str) -> Path:
    is_name = re.fullmatch(r"\w+", name) is not None
    file = f"{_SCHEMAS.get(name, name)}.json" if is_name else ".none"
    return Path(__file__).parent / "schemas" / file


def _kind(name: str) -> str:
    """Tell builder, mixture, own, converted and hub apart."""
    path = Path(name).expanduser()
    if name in BUILDERS:
        return "builder"
    if path.suffix == ".json" and path.is_file():
        return "mixture"
    if path.is_dir():
        return "converted" if _import(".converted", "is_converted")(path) else "own"
    if _HUB_ID.fullmatch(name) and path.suffix != ".json":
        return "hub"
    raise ValueError(
        f"`dataset` must be one of {sorted(BUILDERS)}, a folder, the JSON file of a mixture or a "
        f"Hub id like owner/name, got {name!r}."
    )


def _import(module: str, name: str) -> object:
    return getattr(importlib.import_module(module, __package__), name)


__all__ = [
    "BUILDERS",
    "UNKNOWN_CAMERA",
    "UNKNOWN_LABEL",
    "UNKNOWN_PERSON",
    "load_person_dataset",
    "open_person_dataset",
    "person_features",
    "person_schema",
    "require_dataset_name",
    "schema_names",
]
