"""The training curve of a run as a picture."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws to files; no screen is needed
from matplotlib import pyplot


def draw_curve(history: list[dict], path: Path, score: str) -> None:
    """Draw loss and validation score over the epochs.

    Args:
        history: for each epoch {"epoch", "loss", score}. path: a PNG file.
    """
    epochs = [record["epoch"] for record in history]
    figure, loss_axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    score_axis = loss_axis.twinx()
    loss_axis.plot(epochs, [r["loss"] for r in history], color="tab:grey", label="training loss")
    score_axis.plot(epochs, [r[score] for r in history], color="tab:blue", label=score)
    best = max(history, key=lambda record: record[score])
    score_axis.plot(best["epoch"], best[score], "o", color="tab:blue")
    score_axis.annotate(f"{best[score]:.3f}", (best["epoch"], best[score]), ha="right", va="bottom")
    loss_axis.set(xlabel="epoch", ylabel="training loss")
    score_axis.set_ylabel(f"validation {score.replace('_', ' ')}")
    figure.savefig(path, dpi=120, format="png")
    pyplot.close(figure)
