"""The pictures: bars of each attribute, sheets of crops found, crops with what was recognised."""

from operator import itemgetter
from pathlib import Path
from textwrap import fill

import matplotlib

matplotlib.use("Agg")  # draws to files; no screen is needed
from matplotlib import pyplot
from PIL import Image

# The sets of `attribute_sets`, in the order of their panels.
SET_COLOURS = {"evaluated": "tab:blue", "colours": "tab:orange", "other": "tab:grey"}
MOST_LINES = 12  # beside a crop
RIGHT, WRONG, NEUTRAL = "#2e8b57", "#c0392b", "#888888"


def save_figure(figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        figure.savefig(partial, dpi=110, format="png")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        pyplot.close(figure)


def draw_attributes(rows: list[dict], path: Path) -> None:
    """Mean accuracy of each attribute as a bar: one panel for each set, best first.

    Args:
        rows: `attribute_rows`, at least one; those without a mean accuracy have no bar.
    """
    panels = {name: [row for row in rows if row["set"] == name] for name in SET_COLOURS}
    panels = {name: panel for name, panel in panels.items() if panel}
    longest = max(map(len, panels.values()))
    figure, axes = pyplot.subplots(
        1,
        len(panels),
        figsize=(4.4 * len(panels), 0.2 * longest + 1.4),
        squeeze=False,
        layout="constrained",
    )
    for axis, (name, panel) in zip(axes[0], panels.items(), strict=True):
        _draw_bars(axis, name, panel, longest)
    save_figure(figure, path)


def _draw_bars(axis, name: str, rows: list[dict], longest: int) -> None:
    total, rows = len(rows), [row for row in rows if row["mean_accuracy"] is not None]
    rows.sort(key=itemgetter("mean_accuracy"))
    values = [100 * row["mean_accuracy"] for row in rows]
    axis.axvline(50, color=NEUTRAL, linewidth=1, linestyle=":", zorder=0)
    bars = axis.barh(range(len(rows)), values, color=SET_COLOURS[name])
    axis.bar_label(bars, fmt="%.0f", fontsize=8, padding=3)
    axis.set_yticks(range(len(rows)), [row["attribute"] for row in rows], fontsize=8)
    axis.set_ylim(len(rows) - longest - 0.6, len(rows) - 0.4)  # bars of one height in all panels
    axis.set(xlim=(0, 105), xticks=range(0, 101, 25), xlabel="mean accuracy (%); dotted: chance")
    axis.set_title(name if len(rows) == total else f"{name}: {len(rows)} of {total} known")
    axis.spines[["left", "top", "right"]].set_visible(False)


def draw_retrieval(
    queries: list[str], results: list[list[tuple[Image.Image, bool | None, str]]], path: Path
) -> None:
    """One row for each query: its text, then the crops found, best first.

    Args:
        results: for each query (crop, right or wrong or unknown, caption) of the crops found.
    """
    columns = max(len(found) for found in results)
    figure, axes = pyplot.subplots(
        len(queries),
        columns + 1,
        figsize=(1.5 * columns + 3.4, 2.9 * len(queries)),
        width_ratios=[2.3] + [1] * columns,
        squeeze=False,
        layout="constrained",
    )
    for query, found, row in zip(queries, results, axes, strict=True):
        words = "\n".join(fill(line, 28) for line in query.splitlines())
        row[0].text(0, 0.5, words, va="center", fontsize=11)
        for axis in row:
            axis.set_axis_off()
        for axis, (image, is_right, caption) in zip(row[1:], found, strict=False):
            _draw_crop(axis, image, is_right, caption)
    save_figure(figure, path)


def _draw_crop(axis, image: Image.Image, is_right: bool | None, caption: str) -> None:
    colour = NEUTRAL if is_right is None else RIGHT if is_right else WRONG
    axis.set_axis_on()
    axis.imshow(image.convert("RGB").resize((128, 256)))
    axis.set(xticks=[], yticks=[])
    axis.set_title(caption, fontsize=9)
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=3)


def draw_attribute_precision(rows: list[dict], path: Path, columns: int = 3) -> None:
    """Average precision of each attribute asked for alone; a tick at its share, which is chance.

    Args:
        rows: {"attribute", "share", "average_precision"} of each, at least one.
    """
    rows = sorted(rows, key=itemgetter("average_precision"), reverse=True)
    longest = -(-len(rows) // columns)
    size = (4.2 * columns, 0.2 * longest + 1.2)
    figure, axes = pyplot.subplots(1, columns, figsize=size, squeeze=False, layout="constrained")
    for number, axis in enumerate(axes[0]):
        part = rows[number * longest : (number + 1) * longest]
        places = range(0, -len(part), -1)
        bars = axis.barh(places, [100 * row["average_precision"] for row in part], color="tab:blue")
        axis.bar_label(bars, fmt="%.0f", fontsize=8, padding=3)
        shares = [100 * row["share"] for row in part]
        axis.scatter(shares, places, marker="|", color="black", s=30, zorder=3)
        axis.set_yticks(places, [row["attribute"] for row in part], fontsize=8)
        axis.set(xlim=(0, 112), ylim=(0.6 - longest, 0.6), xlabel="average precision (%)")
        axis.spines[["left", "top", "right"]].set_visible(False)
    figure.suptitle("One attribute asked for; black tick: share of the gallery", fontsize=10)
    save_figure(figure, path)


def draw_recognition(
    crops: list[tuple[Image.Image, list[tuple[str, bool | None]]]], path: Path, columns: int = 4
) -> None:
    """Crops with the recognised attributes beside them, green where right, red where wrong.

    Args:
        crops: (crop, lines), a line being (text, right or wrong or unknown).
    """
    rows = -(-len(crops) // columns)
    figure, axes = pyplot.subplots(
        rows,
        2 * columns,
        figsize=(3.6 * columns, 3.3 * rows),
        width_ratios=[1, 1.35] * columns,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for number, (image, lines) in enumerate(crops):
        picture, text = axes[number // columns][2 * (number % columns) :][:2]
        picture.imshow(image.convert("RGB").resize((128, 256)))
        picture.set_anchor("N")  # level with the first line
        for line, (words, is_right) in enumerate(lines[:MOST_LINES]):
            colour = "black" if is_right is None else RIGHT if is_right else WRONG
            text.text(0, 1 - line / MOST_LINES, words, color=colour, fontsize=9, va="top")
    save_figure(figure, path)
