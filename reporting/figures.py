"""The pictures: bars of each attribute, sheets of crops found, crops with what was recognised."""

from pathlib import Path
from textwrap import fill

import matplotlib

matplotlib.use("Agg")  # draws to files; no screen is needed
from matplotlib import pyplot
from PIL import Image

RIGHT, WRONG, NEUTRAL = "#2e8b57", "#c0392b", "#888888"


def save_figure(figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, dpi=110, format="png")
    pyplot.close(figure)
    partial.replace(path)


def draw_attributes(rows: list[dict], path: Path) -> None:
    """Mean accuracy of each attribute as a bar, best first; evaluated ones darker.

    Args:
        rows: `attribute_rows`; those of which nothing is known are left out.
    """
    rows = sorted((r for r in rows if r["mean_accuracy"] is not None), key=_by_accuracy)
    figure, axis = pyplot.subplots(figsize=(8, 0.17 * len(rows) + 1.2), layout="constrained")
    colours = ["tab:blue" if row["evaluated"] else "lightsteelblue" for row in rows]
    axis.barh([r["attribute"] for r in rows], [r["mean_accuracy"] for r in rows], color=colours)
    axis.axvline(0.5, color=NEUTRAL, linewidth=1, linestyle=":")
    axis.set(xlim=(0.4, 1), xlabel="mean accuracy (dark: evaluated by papers; 0.5: chance)")
    axis.tick_params(axis="y", labelsize=7)
    axis.margins(y=0.005)
    save_figure(figure, path)


def _by_accuracy(row: dict) -> float:
    return row["mean_accuracy"]


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
        row[0].text(0, 0.5, fill(query, 30), va="center", fontsize=10)
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
    axis.set_title(caption, fontsize=8)
    for spine in axis.spines.values():
        spine.set(color=colour, linewidth=3)


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
        for line, (words, is_right) in enumerate(lines):
            colour = "black" if is_right is None else RIGHT if is_right else WRONG
            text.text(0, 0.97 - 0.105 * line, words, color=colour, fontsize=8.5, va="top")
    save_figure(figure, path)
