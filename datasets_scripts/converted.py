"""Converted data sets: Parquet with the images inside and schema.json; a folder or a Hub id."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, load_dataset
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from ..attributes_clear import AttributeSchema
from .person_data import PersonData

SCHEMA_FILE = "schema.json"
_CARD = "README.md"


def is_converted(folder: Path) -> bool:
    """True for a folder with Parquet files whose rows have `labels` already."""
    first = next(iter(sorted(folder.glob("**/*.parquet"))), None)
    return first is not None and "labels" in pq.read_schema(first).names


class ConvertedData(PersonData):
    """A folder that `convert` wrote, read by the library's own loader.

    Args:
        folder: With schema.json. config_name: Of the card; None for its default.
    """

    def __init__(
        self,
        folder: str | Path,
        config_name: str | None = None,
        cache_dir: str | Path | None = None,
    ):
        path = Path(folder).expanduser()
        self.name, self.schema = path.resolve().name, converted_schema(folder)
        self.config_name = config_name or "default"
        self.tables = load_dataset(str(path), config_name, cache_dir=cache_dir and str(cache_dir))
        for split, table in self.tables.items():
            width = getattr(table.features.get("labels"), "length", None)
            if width != self.schema.num_attributes:
                raise ValueError(
                    f"`dataset` must have {self.schema.num_attributes} labels in each row, as its "
                    f"{SCHEMA_FILE} says, got {width} in split {split!r} of {str(folder)!r}. "
                    "Convert it again."
                )

    @property
    def split_sizes(self) -> dict[str, int]:
        """Split -> number of rows."""
        return {split: len(table) for split, table in self.tables.items()}

    def rows(self, split: str) -> Dataset:
        """All rows of one split."""
        return self.tables[split]


class HubData(ConvertedData):
    """A converted data set on the Hub, fetched once; "owner/name" or "owner/name@revision"."""

    def __init__(
        self,
        name: str,
        config_name: str | None = None,
        cache_dir: str | Path | None = None,
    ):
        tables = f"{config_name or '*'}/*.parquet"
        super().__init__(_fetch(name, SCHEMA_FILE, _CARD, tables), config_name, cache_dir)
        self.name = name.partition("@")[0].rpartition("/")[2]


def converted_schema(folder: str | Path) -> AttributeSchema:
    """The schema of a converted data set.

    Raises: ValueError: the folder has none.
    """
    path = Path(folder).expanduser() / SCHEMA_FILE
    if not path.is_file():
        raise ValueError(
            f"`dataset` must hold {SCHEMA_FILE}, which names the labels, beside its Parquet files, "
            f"got {str(folder)!r}. Copy the schema there, or convert the data set again."
        )
    return AttributeSchema.from_json(path)


def hub_schema(name: str) -> AttributeSchema:
    """The schema of a converted data set on the Hub."""
    return converted_schema(_fetch(name, SCHEMA_FILE))


def _fetch(name: str, *patterns: str) -> Path:
    repo_id, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repo_id, repo_type="dataset", revision=revision or None, allow_patterns=[*patterns]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"`dataset` must be a folder or the Hub id of a converted data set, got {name!r}, "
            f"which is no folder here and cannot be fetched: {error}"
        ) from error
    return Path(folder)


__all__ = [
    "SCHEMA_FILE",
    "ConvertedData",
    "HubData",
    "converted_schema",
    "hub_schema",
    "is_converted",
]
