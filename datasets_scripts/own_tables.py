"""The tables of a user's own data: metadata.csv, metadata.jsonl or Parquet, as plain columns."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow.parquet as pq

# Folder and file names that mean a split, as the datasets library reads them.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_METADATA = ("metadata.csv", "metadata.jsonl")
_EXPECTED = (
    "Expected: metadata.csv or metadata.jsonl with a column file_name, in the folder or in "
    "sub-folders train, validation and test, or Parquet files with a column image."
)


@dataclass(frozen=True)
class OwnTable:
    """One metadata file.

    Args:
        path: The file. split: That its place says; None: the place says nothing.
        columns: Name -> values, as long as each other.
    """

    path: Path
    split: str | None
    columns: Mapping[str, Sequence[object]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def read_tables(folder: Path) -> list[OwnTable]:
    """Read every metadata file of a folder.

    Raises: ValueError: there is none, one is broken, or both kinds or both layouts are mixed.
    """
    places = [(None, folder), *_split_folders(folder)]
    found = [(s, place / name) for s, place in places for name in _METADATA]
    files = [(split, path) for split, path in found if path.is_file()]
    if not files:
        tables = sorted(folder.glob("**/*.parquet"))
        files = [(_split_of(path.relative_to(folder)), path) for path in tables]
    if not files:
        raise ValueError(f"`dataset` must hold metadata, got {str(folder)!r}. {_EXPECTED}")
    folders = [path.parent for _, path in files if path.suffix != ".parquet"]
    if len(set(folders)) < len(folders) or (folder in folders and len(folders) > 1):
        raise ValueError(
            f"`dataset` must have one metadata file, or one in each split's folder, got "
            f"{[path.relative_to(folder).as_posix() for _, path in files]}. Keep one."
        )
    tables = [OwnTable(path, split, _read(path)) for split, path in files]
    if not any(map(len, tables)):
        raise ValueError(f"`dataset` must have rows, got empty metadata in {str(folder)!r}.")
    return [table for table in tables if len(table)]


def _split_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name.lower() in SPLIT_NAMES:
            yield SPLIT_NAMES[path.name.lower()], path


def _split_of(path: Path) -> str | None:
    """The split of `train/0.parquet`, `train.parquet` or `train-00000-of-00001.parquet`."""
    words = [*path.parts[:-1], path.stem.partition("-")[0]]
    return next((SPLIT_NAMES[word.lower()] for word in words if word.lower() in SPLIT_NAMES), None)


def _read(path: Path) -> dict[str, list]:
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return {name: table.column(name).to_pylist() for name in table.column_names}
    with path.open(encoding="utf-8-sig", newline="") as file:
        return _read_csv(path, file) if path.suffix == ".csv" else _read_json_lines(path, file)


def _read_csv(path: Path, lines: Iterator[str]) -> dict[str, list]:
    rows = csv.reader(lines)
    header = [name.strip() for name in next(rows, [])]
    if len(set(header)) < len(header) or not all(header):
        raise ValueError(f"`{path.name}` must name every column once, got {header}.")
    kept = [row for row in rows if row]
    for number, row in enumerate(kept, start=1):
        if len(row) != len(header):
            raise ValueError(
                f"`{path.name}` must have {len(header)} fields in each row, as its first line "
                f"says, got {len(row)} in row {number}. Put values with commas in quotes."
            )
    return {name: [row[i] for row in kept] for i, name in enumerate(header)}


def _read_json_lines(path: Path, lines: Iterator[str]) -> dict[str, list]:
    rows = []
    for number, line in enumerate(filter(str.strip, lines), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"`{path.name}` must be JSON in row {number}: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"`{path.name}` must be an object in row {number}, got {row!r}.")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def split_of_file(file_name: str) -> str | None:
    """The split that the first folder of an image's name means."""
    parts = PurePosixPath(file_name).parts
    return SPLIT_NAMES.get(parts[0].lower()) if len(parts) > 1 else None


__all__ = ["SPLIT_NAMES", "OwnTable", "read_tables", "split_of_file"]
