"""The folder of a run: at any moment absent or a whole, loadable repository.

A model is written under a hidden name and then renamed. Between the two renames that replace an
earlier model nothing stands in place; a kill there leaves a whole run under the hidden name, which
`open_run` puts back.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from .curve import draw_curve
from .settings import TrainingSettings, public_name
from .states import RunStates

RECORDS = "training_args.json"  # its presence marks a folder as a run
UNREADABLE = "unreadable_crops.txt"  # not published: names may be private
# Settings that leave the weights as they are; every other one must be the same to go on.
FREE_TO_CHANGE = {
    *("output_dir", "data_dir", "cache_images", "num_workers", "max_hours", "report_to"),
    *("resume", "overwrite", "state_every", "keep_states", "commit", "torch", "finished"),
    *("push_to_hub", "hub_private", "base_name"),
}


def hidden_folders(output: Path) -> tuple[Path, Path]:
    """Where a run is written, and where the one that it replaces waits for its removal."""
    return output.with_name(f".{output.name}.partial"), output.with_name(f".{output.name}.old")


def open_run(output: Path, states: RunStates, record: dict, settings: TrainingSettings) -> None:
    """Make sure that a run can be written, before any work: a new one, or one to go on with.

    Args:
        record: the settings as `public_settings` gives them.
    Raises: ValueError when `output` is a file, holds other files, a finished run, or a run of
        other settings, none of which may be lost; OSError when it cannot be written.
    """
    prepare_folder(output)
    if settings.overwrite:
        states.clear()
    elif settings.resume == "never":
        _refuse_finished(output)
        states.clear()
    else:
        _refuse_other_run(output, states, record)
    _require_writable(output)


def _require_writable(output: Path) -> None:
    parent = next(folder for folder in output.absolute().parents if folder.exists())
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise OSError(
            f"`output_dir` must be in a folder that can be written, got {str(output)!r}: {error}. "
            "Name another folder."
        ) from None


def prepare_folder(output: Path) -> None:
    """Refuse a folder of other files; finish or clear away what a killed run left beside it.

    Raises: ValueError when `output` is a file, or a folder that is not an earlier run.
    """
    is_other = output.is_dir() and any(output.iterdir()) and not (output / RECORDS).is_file()
    if is_other or (output.exists() and not output.is_dir()):
        what = "holds other files" if is_other else "is a file"
        raise ValueError(
            f"`output_dir` must be new, empty or an earlier run, got {str(output)!r}, which "
            f"{what}. Name another folder."
        )
    partial, old = hidden_folders(output)
    if partial.is_dir() and old.is_dir() and not output.exists():
        partial.rename(output)
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)


def read_record(folder: Path) -> dict:
    """The settings that a run was started with, and whether it is "finished"; {}: it is no run."""
    path = folder / RECORDS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def changed_settings(earlier: dict, now: dict) -> str:
    """The settings of `now` that were others, each with both values; empty when all are alike."""
    return ", ".join(
        f"{name} (was {earlier.get(name)!r}, is {value!r})"
        for name, value in now.items()
        if earlier.get(name) != value
    )


def _refuse_finished(output: Path) -> None:
    if read_record(output).get("finished"):
        raise ValueError(
            f"`output_dir` must not hold a finished run, got {str(output)!r}. Name another "
            "folder, or add `--overwrite` to replace it."
        )


def _refuse_other_run(output: Path, states: RunStates, record: dict) -> None:
    earlier, remedy = states.settings(), "add `--resume never` to start again without it"
    if earlier is None:
        _refuse_finished(output)
        earlier, remedy = read_record(output), "add `--overwrite` to replace it"
    binding = {name: value for name, value in record.items() if name not in FREE_TO_CHANGE}
    if earlier and (changed := changed_settings(earlier, binding)):
        raise ValueError(
            f"`output_dir` must be a run of the same settings to go on with, got {str(output)!r}; "
            f"changed: {changed}. Name another folder, or {remedy}."
        )


def require_same_inputs(states: RunStates, inputs: str) -> None:
    """Refuse to go on with other data or another frozen model, which settings need not show.

    Args: inputs: `Stage.inputs`.
    Raises: ValueError.
    """
    earlier = states.settings()
    if earlier is not None and earlier.get("inputs", inputs) != inputs:
        raise ValueError(
            "`data_dir` and `checkpoint` must hold what the run began with, but names or labels of "
            "the crops, or the frozen weights, are others now. Give the earlier ones, or add "
            "`--resume never` to start again."
        )


def finish_run(output: Path, states: RunStates, record: dict) -> None:
    """Mark the run as finished; then its states are of no use any more."""
    write_json(output / RECORDS, {**record, "finished": True})
    states.clear()


def write_run(
    save: Callable[[Path], None],
    output: Path,
    record: dict,
    history: list[dict],
    score: str,
    unreadable: Sequence[str] = (),
) -> None:
    """Write model and records under a hidden name, then put them in place of earlier ones."""
    partial, old = hidden_folders(output)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save(partial)
    write_records(partial, record, history, score, unreadable)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def write_records(
    folder: Path, record: dict, history: list[dict], score: str, unreadable: Sequence[str] = ()
) -> None:
    """Write settings, metrics of each epoch and the curve into a run, each file whole.

    Args:
        history: for each epoch {"epoch", "loss", score, ...}. score: the metric that selects.
        unreadable: names of the crops that were left out; without any, there is no file of them.
    """
    if unreadable:
        write_whole(folder / UNREADABLE, "\n".join(unreadable) + "\n")
    write_json(folder / RECORDS, record)
    write_json(folder / "metrics.json", {"selected_by": score, "epochs": history})
    draw_curve(history, folder / "training_curve.partial", score)
    (folder / "training_curve.partial").replace(folder / "training_curve.png")


def write_json(path: Path, content: dict) -> None:
    """Write one record, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write one file under a temporary name, then rename it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def public_settings(settings: TrainingSettings, num_processes: int) -> dict:
    """What repeats a run: its settings without folders of this machine, processes and commit."""
    record = {name: public_name(value) for name, value in asdict(settings).items()}
    options = json.loads(settings.dataset_options)
    record["dataset_options"] = {name: public_name(value) for name, value in options.items()}
    versions = {"commit": running_commit(), "torch": torch.__version__}
    return {**record, "num_processes": num_processes, **versions}


def running_commit() -> str | None:
    """The commit of this checkout, "-dirty" when changed since; None outside a repository."""
    if shutil.which("git") is None:
        return None
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
