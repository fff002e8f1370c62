"""Where a gallery lies: a folder or object storage, and the space there."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def is_local(uri: str) -> bool:
    """Whether a gallery lies in a folder."""
    return "://" not in uri


def disk_bytes(uri: str) -> int | None:
    """Space that a gallery takes; None where that cannot be seen."""
    if not is_local(uri):
        return None
    return sum(path.stat().st_size for path in Path(uri).rglob("*") if path.is_file())


@contextmanager
def naming_full_disks(uri: str) -> Iterator[None]:
    """Turn the engine's words for a full disk into one line."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        words = str(error).lower()
        is_full = "no space left" in words or "file too large" in words or "os error 28" in words
        if not is_full:
            raise
        free = shutil.disk_usage(uri).free if is_local(uri) else 0
        raise OSError(
            f"`gallery` needs more space, got a full disk at {uri!r} ({free / 1e6:.0f} MB free). "
            "It keeps what was written before; make room and run the same command again."
        ) from None


__all__ = ["disk_bytes", "is_local", "naming_full_disks"]
