"""Checks that every person data set must pass, and the report that lists all deviations at once."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from datasets.utils import tqdm
from PIL import Image, ImageFile

_SHOWN_PER_KIND = 10


@dataclass
class VerificationReport:
    """What a data set on disk has, and in what it deviates from the published one.

    Args:
        dataset: Name and configuration of the data set.
        num_images: Images of the annotation.
        errors: Deviations of the annotation; nothing is ever built from such a data set.
        missing: Image name -> why there is no file for it.
        broken: Image name -> why its file is no image.
    """

    dataset: str
    num_images: int = 0
    errors: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """True if nothing deviates."""
        return not (self.errors or self.missing or self.broken)

    @property
    def num_usable(self) -> int:
        """Images that have a whole file."""
        return self.num_images - len(self.missing) - len(self.broken)

    def describe(self) -> str:
        """Write the deviations as text, the first ten of each kind; the fields hold all of them."""
        lines = [f"{self.dataset}: {self.num_usable} of {self.num_images} images can be used."]
        for title, found in (
            ("errors in the annotation", self.errors),
            ("missing images", [f"{name}: {why}" for name, why in self.missing.items()]),
            ("broken images", [f"{name}: {why}" for name, why in self.broken.items()]),
        ):
            if found:
                lines.append(f"{len(found)} {title}:")
                lines += [f"  - {line}" for line in found[:_SHOWN_PER_KIND]]
            if len(found) > _SHOWN_PER_KIND:
                lines.append(f"  - ... and {len(found) - _SHOWN_PER_KIND} more")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Write the report as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> VerificationReport:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))


class VerificationError(ValueError):
    """A data set deviates from the published one; `report` holds every deviation."""

    def __init__(self, report: VerificationReport, remedy: str) -> None:
        super().__init__(f"{report.describe()}\n{remedy}")
        self.report = report


def check_names(found: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Compare attribute names, position by position."""
    if len(found) != len(expected):
        return [f"there must be {len(expected)} attributes, got {len(found)}"]
    return [
        f"attribute {position} must be `{right}`, got `{name}`"
        for position, (name, right) in enumerate(zip(found, expected, strict=True))
        if name != right
    ]


def check_labels(
    labels: np.ndarray,
    names: Sequence[str],
    image_names: Sequence[str],
    allowed: Sequence[int] = (0, 1),
) -> list[str]:
    """Find labels other than the allowed ones; one line per attribute.

    Args:
        labels: (images, attributes).
        names: Of the attributes.
        image_names: Of the rows.
        allowed: Two values or more.
    """
    if labels.shape[1] != len(names):
        return [f"there must be {len(names)} labels per image, got {labels.shape[1]}"]
    errors = []
    wanted = f"{', '.join(map(str, allowed[:-1]))} or {allowed[-1]}"
    is_wrong = ~np.isin(labels, allowed)
    for column in np.flatnonzero(is_wrong.any(axis=0)):
        rows = np.flatnonzero(is_wrong[:, column])
        values = np.unique(labels[rows, column]).tolist()
        where = _some(rows, image_names)
        errors.append(f"labels of `{names[column]}` must be {wanted}, got {values} in {where}")
    return errors


def check_one_hot(
    labels: np.ndarray, names: Sequence[str], image_names: Sequence[str]
) -> list[str]:
    """Find images that do not have exactly one of some attributes.

    Args:
        labels: (images, attributes), of these attributes alone.
        names: Of the attributes.
        image_names: Of the rows.
    """
    rows = np.flatnonzero((labels == 1).sum(axis=1) != 1)
    if not rows.size:
        return []
    where = _some(rows, image_names)
    return [f"every image must have one of {', '.join(names)}, got none or several in {where}"]


def check_sizes(found: Mapping[str, int], expected: Mapping[str, int], kind: str) -> list[str]:
    """Compare the number of images of each part, such as a split."""
    return [
        f"{kind} `{part}` must have {expected.get(part, 0)} images, got {found.get(part, 0)}"
        for part in dict.fromkeys([*expected, *found])
        if found.get(part, 0) != expected.get(part, 0)
    ]


def check_partition(parts: Mapping[str, np.ndarray], image_names: Sequence[str]) -> list[str]:
    """Check that the parts are disjoint and together cover every image once.

    Args:
        parts: Name -> row numbers, 0-based.
        image_names: Of all rows.
    """
    errors = []
    counts = np.zeros(len(image_names), dtype=np.int64)
    for name, rows in parts.items():
        outside = rows[(rows < 0) | (rows >= len(image_names))]
        if outside.size:
            errors.append(
                f"split `{name}` must point at images 1 to {len(image_names)}, got "
                f"{(outside[:5] + 1).tolist()}"
            )
        np.add.at(counts, np.setdiff1d(rows, outside), 1)
        if len(np.unique(rows)) < len(rows):
            errors.append(
                f"split `{name}` must not repeat an image, got {len(rows)} rows for "
                f"{len(np.unique(rows))} images"
            )
    for problem, rows in (("in no split", counts == 0), ("in several splits", counts > 1)):
        if rows.any():
            errors.append(
                f"every image must be in one split, {problem}: "
                f"{_some(np.flatnonzero(rows), image_names)}"
            )
    return errors


def check_images(paths: Mapping[str, Path]) -> dict[str, str]:
    """Decode every file, in threads, behind a progress bar.

    Args:
        paths: Image name -> file.

    Returns:
        Image name -> defect, for the files that are no whole image.
    """
    workers = min(8, os.cpu_count() or 1)
    with _truncation_is_an_error(), ThreadPoolExecutor(workers) as pool:
        defects = tqdm(
            pool.map(image_defect, paths.values()),
            total=len(paths),
            desc="Verifying images",
            unit=" images",
        )
        return {name: why for name, why in zip(paths, defects, strict=True) if why is not None}


def image_defect(path: Path) -> str | None:
    """Say why a file is no whole image, or None.

    The content decides, not the ending: a `.png` may hold a JPEG.
    """
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            extrema = np.reshape(image.getextrema(), (-1, 2))  # (bands, lowest and highest)
            is_jpeg = image.format == "JPEG"
    # Decoders raise whatever a broken file drives them to: OSError, SyntaxError, ValueError, ...
    except Exception as error:
        return f"{path}: {str(error) or type(error).__name__}"
    if is_jpeg and _tail_is_blank(content):
        return f"{path}: the end of the JPEG is overwritten with zeros"
    if (extrema[:, 0] == extrema[:, 1]).all():
        return f"{path}: a single colour"
    return None


def _tail_is_blank(jpeg: bytes) -> bool:
    """Find what an interrupted download leaves in a file of full length: decoders show it grey."""
    content = jpeg.rstrip(b"\0")
    return len(content) < len(jpeg) and not content.endswith(b"\xff\xd9")


@contextmanager
def _truncation_is_an_error() -> Iterator[None]:
    """Undo, for a while, Pillow's global switch that fills truncated images up in silence."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _some(rows: np.ndarray, image_names: Sequence[str]) -> str:
    shown = ", ".join(image_names[row] for row in rows[:5])
    return f"{len(rows)} image(s): {shown}{', ...' if len(rows) > 5 else ''}"


__all__ = [
    "VerificationError",
    "VerificationReport",
    "check_images",
    "check_labels",
    "check_names",
    "check_one_hot",
    "check_partition",
    "check_sizes",
    "image_defect",
]
