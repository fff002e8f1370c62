"""Finding the files of a data set that lies on disk, wherever users have unpacked it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_SHOWN = 8


def existing_folder(data_dir: str | None, instructions: str) -> Path:
    """Return `data_dir` as a path.

    Args:
        data_dir: As the user gave it.
        instructions: Where the data set comes from; ends the error.

    Raises:
        FileNotFoundError: It is no folder.
    """
    if data_dir is None or not Path(data_dir).is_dir():
        raise FileNotFoundError(f"`data_dir` must be a folder, got {data_dir!r}. {instructions}")
    return Path(data_dir)


def first_file(roots: Iterable[Path], name: str) -> Path | None:
    """Return the file of this name in the first of the folders that has it."""
    return next((root / name for root in roots if (root / name).is_file()), None)


def files_in(folder: Path, pattern: str) -> dict[str, Path]:
    """Find the files of a folder whose whole name matches.

    Args:
        folder: Need not exist.
        pattern: A regular expression; capitals count.

    Returns:
        Name -> file; empty where there is no such folder.
    """
    if not folder.is_dir():
        return {}
    is_wanted = re.compile(pattern).fullmatch
    return {path.name: path for path in folder.iterdir() if is_wanted(path.name)}


def fullest_folder(folders: Iterable[Path], pattern: str) -> dict[str, Path]:
    """Return the files (`files_in`) of the folder that has most of them, the first such one."""
    return max((files_in(folder, pattern) for folder in folders), key=len, default={})


def missing_files(folder: Path, found: Mapping[str, int], instructions: str) -> FileNotFoundError:
    """Make the error for a folder that lacks a part of a data set.

    Args:
        folder: `data_dir`.
        found: Part -> how many files of it were found, or whether it was.
        instructions: Where the data set comes from; ends the error.
    """
    words = {True: "found", False: "not found"}
    parts = [
        f"{part} ({words[n] if isinstance(n, bool) else f'{n} found'})" for part, n in found.items()
    ]
    return FileNotFoundError(
        f"`data_dir` must hold {' and '.join(parts)}, got {str(folder)!r} with {listing(folder)}. "
        f"{instructions}"
    )


def listing(folder: Path) -> str:
    """Name the first entries of a folder, for an error that says what was found."""
    names: Sequence[str] = sorted(path.name for path in folder.iterdir())
    if not names:
        return "nothing in it"
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])


__all__ = [
    "existing_folder",
    "files_in",
    "first_file",
    "fullest_folder",
    "listing",
    "missing_files",
]
