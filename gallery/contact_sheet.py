"""A picture of what was found: a row of crops for each search."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ..processing_clear import to_rgb
from ..reporting.figures import draw_retrieval
from .searching import Found, Hit
from .sources import read_again
from .table import GalleryTable

COLUMNS = 12


def draw_contact_sheet(table: GalleryTable, found: Sequence[Found], path: Path) -> int:
    """Draw a row of crops for each search; returns how many images were no longer there."""
    results, missing = [], 0
    for one in found:
        row = []
        for hit in one.hits[:COLUMNS]:
            image = open_crop(table, hit)
            missing += image is None
            asked = len(hit.matched) + len(hit.missed)
            caption = f"{hit.rank}: {hit.score:.2f}" + ("" if image else " (gone)")
            caption += f"\n{len(hit.matched)} of {asked}" if asked else ""
            row.append((image or Image.new("RGB", (64, 128), "lightgrey"), None, caption))
        results.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw_retrieval([one.text for one in found], results, path)
    return missing


def open_crop(table: GalleryTable, hit: Hit) -> Image.Image | None:
    """The picture of a hit: the JPEG in the table, else the file in its source; None: gone."""
    rows = [
        row for batch in table.batches(["jpeg"], f"`id` = '{hit.id}'") for row in batch.to_pylist()
    ]
    try:
        content = rows[0]["jpeg"] if rows and rows[0]["jpeg"] else read_again(hit.source, hit.image)
        return to_rgb(Image.open(io.BytesIO(content)))
    except (OSError, SyntaxError, ValueError):
        return None


__all__ = ["draw_contact_sheet", "open_crop"]
