"""What a search prints and writes: a table, JSON or CSV."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from .searching import Found, Hit

FORMATS = ("table", "json", "csv")
PLAIN = ("rank", "score", "cosine", "id", "source", "image", "camera", "time")

# What a spreadsheet takes for a formula, unless the whole cell is a number.
FORMULA = re.compile(r"(?![+-]?\d+(\.\d*)?$)[=+\-@\t\n]")


def render(found: Sequence[Found], kind: str) -> str:
    """The answers as text in one of `FORMATS`."""
    return {"table": as_table, "json": as_json, "csv": as_csv}[kind](found)


def as_json(found: Sequence[Found]) -> str:
    """A list with an entry for each search."""
    answers = [
        {
            "query": _plain_query(one),
            "filter": one.search.filter,
            "read_as": one.text,
            "ranked_by": "cosine and evidence" if one.fused else "cosine",
            "notes": list(one.notes),
            "milliseconds": round(one.milliseconds, 2),
            "hits": [asdict(hit) for hit in one.hits],
        }
        for one in found
    ]
    return json.dumps(answers, indent=2, default=_plain)


def as_csv(found: Sequence[Found]) -> str:
    """A row for each hit; `query` numbers the searches from 1.

    Text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    buffer = io.StringIO()
    free = dict.fromkeys(name for one in found for hit in one.hits for name in hit.metadata)
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["query", *PLAIN, "matched", "missed", *map(_cell, free)])
    for number, one in enumerate(found, start=1):
        for hit in one.hits:
            plain = [_cell(getattr(hit, name)) for name in PLAIN]
            rest = [_cell(hit.metadata.get(name)) for name in free]
            asked = [_cell("; ".join(names)) for names in (hit.matched, hit.missed)]
            writer.writerow([number, *plain, *asked, *rest])
    return buffer.getvalue().rstrip("\n")


def as_table(found: Sequence[Found]) -> str:
    """For reading."""
    lines = []
    for one in found:
        lines += [f"{one.text}  [{one.milliseconds:.1f} ms]", *one.notes]
        lines += [_line(hit, one.fused) for hit in one.hits] or ["  nothing found"]
        lines.append("")
    return "\n".join(lines).rstrip()


def _line(hit: Hit, fused: bool) -> str:
    asked = len(hit.matched) + len(hit.missed)
    words = ", ".join(f"{name} {chance:.2f}" for name, chance in hit.matched.items())
    place = f" camera {hit.camera}" if hit.camera else ""
    time = f" {hit.time.isoformat(' ', 'seconds')}" if hit.time else ""
    matched = f"  {len(hit.matched)} of {asked}: {words}".rstrip(": ") if asked else ""
    score = f"{hit.score:6.3f}" + (f" (cosine {hit.cosine:.3f})" if fused else "")
    return f"{hit.rank:4d}  {score}  {hit.image}{place}{time}{matched}"


def _plain_query(one: Found):
    image = one.search.image
    return {
        "attributes": one.search.query,
        "image": "bytes" if isinstance(image, bytes) else image,
    }


def _plain(value):
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _cell(value) -> str:
    if isinstance(value, float):
        return f"{value:.6f}"
    text = "" if value is None else _plain(value)
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # csv leaves a lone "\r" unquoted
    return f"'{text}" if FORMULA.match(text) else text


__all__ = ["FORMATS", "as_csv", "as_json", "as_table", "render"]
