"""Measure how much faster an adapter trains on kept features than on crops and texts.

    python scripts/benchmark_cached_training.py                       # drawn crops
    python scripts/benchmark_cached_training.py --dataset peta --data_dir PETA_FOLDER

Three ways run the same steps side by side, with the same data, batches, adapter and loss: nothing
kept (backbone and language model work in every step, as in a program that trains the projections
alone), texts kept (`--cache_features false` of train.py: the backbone works in every step), and all
kept. The features are computed once before the measurement; their time is given apart, and so is
the number of steps after which it has paid off against texts kept. The loss curves are compared as
well: with `--feature_views 1`, where no augmentation differs, they agree.
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
from clear_par.training.queries import TextCache
from clear_par.training.retrieval import RetrievalStage
from clear_par.training.settings import TrainingSettings

WARM_UP = 2  # steps that are run and not timed


@dataclass
class Measurement:
    """One way of training.

    prepared: seconds before the first step. seconds, bare_seconds: of each step with kept texts,
    and of those after them with nothing kept. losses: of all steps.
    """

    prepared: float
    seconds: list[float]
    bare_seconds: list[float]
    losses: list[float]


def rate(seconds: list[float]) -> float:
    """Steps per second by the median, which one interruption does not move."""
    return 1 / statistics.median(seconds)


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
    parser.add_argument("--bare_steps", type=int, default=2, help="timed steps with nothing kept")
    parser.add_argument("--steps", type=int, default=6, help="timed steps without kept features")
    parser.add_argument("--kept_steps", type=int, default=40, help="timed steps with them")
    return parser.parse_args(arguments)


def measure(settings: TrainingSettings, steps: int, bare_steps: int = 0) -> Measurement:
    """Run some steps of a new adapter, the last ones with the language model in each."""
    accelerator = Accelerator(mixed_precision=settings.mixed_precision)
    set_seed(settings.seed)
    started = time.perf_counter()
    stage = RetrievalStage(settings, accelerator)
    prepared = time.perf_counter() - started
    optimizer = build_optimizer(stage.model, settings, stage.rate_scale)
    model, optimizer, loader = accelerator.prepare(stage.model, optimizer, stage.loaders()[0])
    stage.start_epoch(1)
    model.train()
    seconds, losses, last = [], [], time.perf_counter()
    bare_from = WARM_UP + steps
    for step, batch in enumerate(islice(cycle_epochs(loader), bare_from + bare_steps)):
        if step >= bare_from:
            encode_queries(stage, batch["index"])
        loss = stage.loss(model, batch)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    return Measurement(prepared, seconds[WARM_UP:bare_from], seconds[bare_from:], losses)


def encode_queries(stage: RetrievalStage, index: torch.Tensor) -> None:
    """Put all queries of a step through the language model again.

    Args: index: (batch,) the crops of the step, whose partial queries are asked.
    """
    texts = TextCache(stage.base, stage.processor)  # a new one knows no text
    used = [(stage.category_queries, slice(None))]
    if stage.settings.partial_weight:
        used.append((stage.partial_queries, index))
    for queries, rows in used:
        said = queries["query_attributes"][rows].cpu().numpy()
        queries["text_embeds"][rows] = texts.embed(said)


def cycle_epochs(loader):
    """Batches without end; each pass draws them anew, as an epoch does."""
    for _ in cycle([None]):
        yield from loader


def compare(arguments: argparse.Namespace, batch_size: int) -> dict:
    """All ways at one batch size; `bare` is missing where queries have no text."""
    names = ("checkpoint", "dataset", "data_dir", "config_name", "dataset_options")
    common = {name: getattr(arguments, name) for name in names}
    common |= {"stage": "retrieval", "feature_views": 1, "batch_size": batch_size}
    common |= json.loads(arguments.settings)
    settings = TrainingSettings(**common, cache_features="false")
    bare_steps = 0 if settings.query_kind == "hard" else arguments.bare_steps
    plain = measure(settings, arguments.steps, bare_steps)
    kept = measure(TrainingSettings(**common, cache_features="memory"), arguments.kept_steps)
    cost = max(0.0, kept.prepared - plain.prepared)
    gain = 1 / rate(plain.seconds) - 1 / rate(kept.seconds)
    pairs = zip(plain.losses, kept.losses, strict=False)
    return {
        "batch_size": batch_size,
        **({"bare": rate(plain.bare_seconds)} if bare_steps else {}),
        "plain": rate(plain.seconds),
        "kept": rate(kept.seconds),
        "seconds_once": cost,
        "paid_off_after": cost / gain if gain > 0 else float("inf"),
        "largest_difference": max(abs(a - b) / abs(b) for a, b in pairs),
    }


def report(rows: list[dict]) -> str:
    """A Markdown table of `compare`."""
    header = ["batch", "steps/s, nothing kept", "steps/s, texts kept", "steps/s, all kept"]
    header += ["times faster than nothing kept", "times faster than texts kept"]
    header += ["features once, s", "paid off after, steps", "largest relative loss difference"]
    cells = [
        [
            row["batch_size"],
            f"{row['bare']:.3f}" if "bare" in row else "",
            f"{row['plain']:.3f}",
            f"{row['kept']:.2f}",
            f"{row['kept'] / row['bare']:.0f}" if "bare" in row else "",
            f"{row['kept'] / row['plain']:.1f}",
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
