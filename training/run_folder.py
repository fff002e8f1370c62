"""The folder of a run: at any moment absent or a whole, loadable repository.

A model is written under a hidden name and then renamed. Between the two renames that replace an
earlier model nothing stands in place; a kill there leaves a whole run under the hidden name, which
`prepare_folder` puts back.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from .curve import draw_curve
from .settings import TrainingSettings, public_name

RECORDS = "training_args.json"  # its presence marks a folder as a run


def hidden_folders(output: Path) -> tuple[Path, Path]:
    """Where a run is written, and where the one that it replaces waits for its removal."""
    return output.with_name(f".{output.name}.partial"), output.with_name(f".{output.name}.old")


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


def write_run(
    save: Callable[[Path], None], output: Path, record: dict, history: list[dict], score: str
) -> None:
    """Write model and records under a hidden name, then put them in place of earlier ones."""
    partial, old = hidden_folders(output)
    partial.mkdir(parents=True)
    save(partial)
    write_records(partial, record, history, score)
    if output.exists():
        output.rename(old)
    partial.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def write_records(folder: Path, record: dict, history: list[dict], score: str) -> None:
    """Write settings, metrics of each epoch and the curve into a run, each file whole.

    Args:
        history: for each epoch {"epoch", "loss", score, ...}. score: the metric that selects.
    """
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
