"""The states of an unfinished run: all that is needed to go on after a kill as if it had not been.

A state is a folder `<output_dir>.states/step-<number>`, written under a hidden name and renamed
when it is whole: optimizer and random states by Accelerate, the weights that learn and their
averages, and how far the run is. Frozen weights are not copied: they come from where the run got
them. Accelerate keeps optimizer and random states in torch's own format and reads them
with `weights_only`, which builds tensors and numbers and runs nothing.
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from .averaging import WeightAverage

WEIGHTS, PROGRESS = "weights.safetensors", "progress.json"


@dataclass
class Progress:
    """How far a run is.

    epoch: the one that is being trained, from 1. batches: of it that are done, per process.
    step: updates of the weights so far. total_loss: sum over the batches of this epoch.
    num_skipped: crops of this epoch that were left out. unreadable: names of all such crops so far.
    best: highest validation score, and best_epoch; history: metrics of the finished epochs.
    """

    epoch: int = 1
    batches: int = 0
    step: int = 0
    total_loss: float = 0.0
    num_skipped: int = 0
    unreadable: list[str] = field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    history: list[dict] = field(default_factory=list)

    def leave_out(self, names: list[str]) -> list[str]:
        """Note crops of this epoch that were left out; returns those not known before."""
        new = sorted(set(names) - set(self.unreadable))
        self.unreadable = sorted(self.unreadable + new)
        self.num_skipped += len(names)
        return new

    def finish_epoch(self, scores: dict[str, float], score: str) -> bool:
        """Add the metrics of the epoch, go to the next; returns whether it is the best so far."""
        loss = self.total_loss / max(1, self.batches)
        self.history.append({"epoch": self.epoch, "loss": loss, **scores})
        is_best = self.best is None or scores[score] > self.best
        if is_best:
            self.best, self.best_epoch = scores[score], self.epoch
        self.epoch, self.batches, self.total_loss = self.epoch + 1, 0, 0.0
        self.num_skipped = 0
        return is_best


class RunStates:
    """Writes, finds and reads the states of one run.

    Args:
        output: folder of the run. every: steps between two states. keep: states on disk.
    """

    def __init__(self, output: Path, every: int, keep: int):
        self.folder = output.with_name(output.name + ".states")
        self.every, self.keep = every, keep

    def is_due(self, step: int) -> bool:
        """Whether a state is to be written after this step; one follows each epoch anyway."""
        return step % self.every == 0

    def all(self) -> list[Path]:
        """The whole states, the oldest first."""
        return sorted(self.folder.glob("step-*"))

    def settings(self) -> dict | None:
        """Settings of the run that the latest state belongs to; None without a state."""
        states = self.all()
        return json.loads((states[-1] / PROGRESS).read_text())["settings"] if states else None

    def save(
        self, accelerator: Accelerator, average: WeightAverage, progress: Progress, settings: dict
    ) -> None:
        """Write one state, whole or not at all; the oldest beyond `keep` goes afterwards.

        Raises: OSError when there is no room; earlier states stay.
        """
        final = self.folder / f"step-{progress.step:08d}"
        partial = self.folder / f".{final.name}.partial"
        try:
            self._write(accelerator, average, progress, settings, partial)
        # safetensors and torch raise errors of their own for a full disk.
        except Exception as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(
                f"`output_dir` must have room for the state of the run, writing "
                f"{str(final)!r} failed: {error}. Earlier states and the run are whole: make "
                "room and start the same command again."
            ) from error
        if accelerator.is_main_process:
            remove_whole(final)
            partial.rename(final)
            for old in self.all()[: -self.keep]:
                remove_whole(old)
        accelerator.wait_for_everyone()

    def _write(
        self,
        accelerator: Accelerator,
        average: WeightAverage,
        progress: Progress,
        settings: dict,
        partial: Path,
    ) -> None:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        hook = accelerator.register_save_state_pre_hook(lambda _, weights, __: weights.clear())
        accelerator.save_state(str(partial))
        hook.remove()
        if accelerator.is_main_process:
            save_file(average.tensors(), partial / WEIGHTS)
            text = json.dumps({"progress": asdict(progress), "settings": settings}, indent=1)
            (partial / PROGRESS).write_text(text, encoding="utf-8")
        accelerator.wait_for_everyone()

    def restore(self, accelerator: Accelerator, average: WeightAverage) -> Progress:
        """Put everything back to the latest state; a run without one begins.

        Raises: ValueError when a file of the state is damaged.
        """
        if not (states := self.all()):
            return Progress()
        try:
            hook = accelerator.register_load_state_pre_hook(lambda models, _: models.clear())
            accelerator.load_state(str(states[-1]))
            hook.remove()
            average.load_tensors(load_file(states[-1] / WEIGHTS))
            return Progress(**json.loads((states[-1] / PROGRESS).read_text())["progress"])
        except Exception as error:
            raise ValueError(
                f"`output_dir` must have whole states, {str(states[-1])!r} cannot be read: "
                f"{error}. Remove that folder: the run then goes on from the state before."
            ) from error

    def clear(self) -> None:
        """Remove all states."""
        remove_whole(self.folder)


def remove_whole(folder: Path) -> None:
    """Remove a folder; a kill on the way leaves nothing that looks like a state."""
    hidden = folder.with_name(f".{folder.name.removeprefix('.')}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    if folder.exists():
        folder.rename(hidden)
        shutil.rmtree(hidden, ignore_errors=True)
