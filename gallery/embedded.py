"""What embedding a crop gives, for the parts that need no model."""

from dataclasses import dataclass

import numpy as np

DECODERS = 4  # threads; reading, decoding and resizing leave the interpreter free


@dataclass(frozen=True)
class Embedded:
    """What is kept of one crop; `error` says why there is nothing to keep."""

    embedding: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    jpeg: bytes | None = None
    error: str = ""


def reason(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


__all__ = ["DECODERS", "Embedded", "reason"]
