"""Where the curves of a run go: TensorBoard by default, Weights & Biases when asked for."""

from importlib.util import find_spec

from accelerate import Accelerator


def tracker_names(report_to: str) -> list[str] | None:
    """Trackers of Accelerate for the setting; a named one must be installed.

    Raises: ValueError when it is not.
    """
    is_there = {name: find_spec(name) is not None for name in ("tensorboard", "wandb")}
    if report_to in is_there and not is_there[report_to]:
        raise ValueError(
            f"`report_to` must name an installed package, got {report_to!r}: "
            f"pip install {report_to}, or take none."
        )
    if report_to == "auto":
        return ["tensorboard"] if is_there["tensorboard"] else None
    return None if report_to == "none" else [report_to]


def start_trackers(accelerator: Accelerator, record: dict) -> None:
    """Open the trackers with the settings of the run; a resumed run adds to the same curves."""
    kinds = (int, float, str, bool)
    settings = {name: value for name, value in record.items() if isinstance(value, kinds)}
    accelerator.init_trackers("clear", settings)
