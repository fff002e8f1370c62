"""The reliability plot: how often is there what was predicted with which probability."""

from pathlib import Path

from .figures import NEUTRAL, SET_COLOURS, pyplot, save_figure


def draw_reliability(bins_of_sets: dict[str, dict], errors: dict[str, float], path: Path) -> None:
    """Share of positives over predicted probability, above the number of cells of each bin.

    Args:
        bins_of_sets: set -> result of `reliability_of_all`. errors: set -> expected calibration
            error. path: of the PNG, written whole or not at all.
    """
    figure, (curve, cells) = pyplot.subplots(
        2, 1, figsize=(4.6, 5.6), height_ratios=[3, 1], sharex=True, layout="constrained"
    )
    curve.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=1, linestyle=":")
    for name, bins in bins_of_sets.items():
        filled = [i for i, count in enumerate(bins["count"]) if count]
        probability = [bins["mean_probability"][i] for i in filled]
        share = [bins["positive_share"][i] for i in filled]
        label = f"{name}: {100 * errors[name]:.1f}"
        style = {"marker": "o", "markersize": 4, "color": SET_COLOURS[name]}
        curve.plot(probability, share, label=label, **style)
        cells.plot(probability, [bins["count"][i] for i in filled], **style)
    curve.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is there")
    curve.legend(title="mean calibration error (%)", fontsize=8, title_fontsize=8, frameon=False)
    cells.set(yscale="log", xlabel="predicted probability; dotted: reliable", ylabel="cells")
    for axis in (curve, cells):
        axis.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
