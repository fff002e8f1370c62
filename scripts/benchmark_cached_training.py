"""Measure how much faster an adapter trains on kept features than with the backbone in every step.

    python scripts/benchmark_cached_training.py                       # drawn crops
    python scripts/benchmark_cached_training.py --dataset peta --data_dir PETA_FOLDER

Both ways run the same steps side by side: same data, batches, adapter and loss. The features are
computed once before the measurement; their time is given apart, and so is the number of steps after
which it has paid off. The loss curves are compared as well: with `--feature_views 1`, where no
augmentation differs, they agree.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from clear_par.reporting.markdown import table
from clear_par.reporting.provenance import hardware
from clear_par.training.optimization import build_optimizer
from clear_par.training.retrieval import RetrievalStage
from clear_par.training.settings import TrainingSettings

WARM_UP = 2  # steps that are run and not timed


@dataclass
class Measurement:
    """One way of training: seconds of its preparation, of each step, and the losses.

    processor: seconds of a step summed over all processor cores, the mean; other programs on the
    machine change it less than they change the time on the clock.
    """

    prepared: float
    seconds: list[float]
    processor: float
    losses: list[float]

    @property
    def steps_per_second(self) -> float:
        """By the median, which one interruption does not move."""
        return 1 / statistics.median(self.seconds)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root = str(Path(__file__).resolve().parents[1])
    parser.add_argument("--checkpoint", default=root, help="folder or Hub id of the base")
    parser.add_argument("--dataset", default="synthetic", help="as of train.py")
    parser.add_argument("--data_dir", help="as of train.py")
    parser.add_argument("--config_name", help="as of train.py")
    parser.add_argument("--dataset_options", default="{}", help="as of train.py")
    parser.add_argument("--settings", default="{}", help="further settings of train.py as JSON")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--steps", type=int, default=6, help="timed steps without kept features")
    parser.add_argument("--kept_steps", type=int, default=40, help="timed steps with them")
    return parser.parse_args(arguments)


def measure(settings: TrainingSettings, steps: int, compared: int = 0) -> Measurement:
    """Run some steps of a new adapter.

    Args: compared: losses that are kept, of the first steps; at most WARM_UP + steps.
    """
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    set_seed(settings.seed)
    started = time.perf_counter()
    stage = RetrievalStage(settings, accelerator)
    prepared = time.perf_counter() - started
    optimizer = build_optimizer(stage.model, settings, stage.rate_scale)
    model, optimizer, loader = accelerator.prepare(stage.model, optimizer, stage.loaders()[0])
    stage.start_epoch(1)
    model.train()
    seconds, losses = [], []
    busy, last = 0.0, time.perf_counter()
    for step, batch in enumerate(islice(cycle_epochs(loader), WARM_UP + steps)):
        if step == WARM_UP:
            busy = time.process_time()
        loss = stage.loss(model, batch)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    busy = (time.process_time() - busy) / steps
    return Measurement(prepared, seconds[WARM_UP:], busy, losses[:compared])


def cycle_epochs(loader):
    """Batches without end; each pass draws them anew, as an epoch does."""
    for _ in cycle([None]):
        yield from loader


def compare(arguments: argparse.Namespace, batch_size: int) -> dict:
    """Both ways at one batch size."""
    names = ("checkpoint", "dataset", "data_dir", "config_name", "dataset_options")
    common = {name: getattr(arguments, name) for name in names}
    common |= {"stage": "retrieval", "feature_views": 1, "batch_size": batch_size}
    common |= json.loads(arguments.settings)
    compared = WARM_UP + min(arguments.steps, arguments.kept_steps)
    found = {
        mode: measure(TrainingSettings(**common, cache_features=mode), steps, compared)
        for mode, steps in (("false", arguments.steps), ("memory", arguments.kept_steps))
    }
    plain, kept = found["false"], found["memory"]
    cost = max(0.0, kept.prepared - plain.prepared)
    gain = 1 / plain.steps_per_second - 1 / kept.steps_per_second
    return {
        "batch_size": batch_size,
        "plain": plain.steps_per_second,
        "kept": kept.steps_per_second,
        "speed_up": kept.steps_per_second / plain.steps_per_second,
        "processor_speed_up": plain.processor / kept.processor,
        "seconds_once": cost,
        "paid_off_after": cost / gain if gain > 0 else float("inf"),
        "largest_difference": max(
            abs(a - b) / abs(b) for a, b in zip(plain.losses, kept.losses, strict=True)
        ),
    }


def report(rows: list[dict]) -> str:
    """A Markdown table of `compare`."""
    header = ["batch", "steps/s, backbone in every step", "steps/s, kept features", "times faster"]
    header += [
        "times less processor time",
        "features once, s",
        "paid off after, steps",
        "largest relative loss difference",
    ]
    cells = [
        [
            row["batch_size"],
            f"{row['plain']:.3f}",
            f"{row['kept']:.2f}",
            f"{row['speed_up']:.1f}",
            f"{row['processor_speed_up']:.1f}",
            f"{row['seconds_once']:.1f}",
            f"{row['paid_off_after']:.0f}",
            f"{row['largest_difference']:.1e}",
        ]
        for row in rows
    ]
    return table(header, cells)


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    """Measure and print."""
    options = parse_arguments(arguments)
    rows = [compare(options, batch_size) for batch_size in options.batch_sizes]
    print(f"torch {torch.__version__}, {hardware()}\n\n{report(rows)}")
    return rows


if __name__ == "__main__":
    main()
