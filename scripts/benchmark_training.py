"""Time training steps and the loader of crops: crops per second, and peak memory.

    python scripts/benchmark_training.py
    python scripts/benchmark_training.py --dataset peta --data_dir PETA_FOLDER --threads 2

Each row of the first table is a process of its own, whose memory is at its highest what the table
says (of the GPU, where there is one). A step is that of train.py: forward pass, loss, backward
pass, clipping, AdamW, average of the weights. The second table times the loader alone: decoding,
resizing and augmentation, or augmentation of crops that are held in memory; its last column is how
often the loader could feed the fastest model of the first preset. Without `--dataset` it reads the
repository's own JPEG samples again and again.
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from datasets import Dataset, Image
from torch.utils.data import DataLoader

from clear_par.attributes_clear import AttributeSchema
from clear_par.configuration_clear import PRESETS, ClearConfig
from clear_par.datasets_scripts.person_dataset import open_person_dataset, person_schema
from clear_par.modeling_clear import ClearModel
from clear_par.processing_clear import ClearProcessor
from clear_par.reporting.provenance import hardware
from clear_par.training.averaging import WeightAverage
from clear_par.training.crops import Augmentation, PersonCrops
from clear_par.training.optimization import build_optimizer
from clear_par.training.settings import TrainingSettings

PRECISIONS = {"float32": "no", "bfloat16": "bf16"}
NUM_ATTRIBUTES = 35
SAMPLES = Path(__file__).parents[1] / "assets" / "samples"


@dataclass(frozen=True)
class Variant:
    """One row of the first table."""

    preset: str
    dtype: str
    batch_size: int
    steps: int
    threads: int


def peak_memory() -> float:
    """Most memory that this process, or its GPU, ever held, in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")  # Linux; unlike getrusage it forgets the parent's
    if status.is_file():
        line = next(n for n in status.read_text().splitlines() if n.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def time_steps(variant: Variant) -> tuple[float, float, float]:
    """Crops per second (median step), and memory in MB: at most, and before the model was made."""
    torch.set_num_threads(variant.threads)
    accelerator = Accelerator(mixed_precision=PRECISIONS[variant.dtype])
    base = peak_memory()
    config = ClearConfig.preset(variant.preset, num_labels=NUM_ATTRIBUTES)
    model, settings = ClearModel(config).train(), TrainingSettings()
    optimizer = build_optimizer(model, settings, lambda name: 1.0)
    model, optimizer = accelerator.prepare(model, optimizer)
    average = WeightAverage(model, settings.ema_decay)
    shape = (variant.batch_size, 3, config.image_height, config.image_width)
    pixel_values = torch.randn(shape, device=accelerator.device)
    labels = torch.randint(0, 2, (variant.batch_size, NUM_ATTRIBUTES), device=accelerator.device)
    seconds = []
    for _ in range(variant.steps + 1):
        start = time.perf_counter()
        loss = model(pixel_values=pixel_values, labels=labels).loss
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        loss.item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return variant.batch_size / statistics.median(seconds[1:]), peak_memory(), base


def in_new_process(variant: Variant) -> tuple[float, float, float]:
    """`time_steps`, without what this process holds already."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(time_steps, variant).result()


def time_loader(crops: PersonCrops, batch_size: int, count: int, workers: int) -> float:
    """Crops per second of the loader of train.py, without the start of its processes."""
    order = [index % len(crops) for index in range(count + batch_size)]
    loader = DataLoader(crops, batch_size, sampler=order, drop_last=True, num_workers=workers)
    batches = iter(loader)
    next(batches)
    start, seen = time.perf_counter(), 0
    for batch in batches:
        seen += len(batch["row"])
    return seen / (time.perf_counter() - start)


def crops_of(options: argparse.Namespace) -> tuple[Dataset, AttributeSchema]:
    """The crops that the loader is timed on, and their schema."""
    if options.dataset is not None:
        data = open_person_dataset(options.dataset, options.data_dir, options.config_name)
        return data.load("train"), data.schema
    schema = person_schema("synthetic")
    images = [{"bytes": path.read_bytes(), "path": None} for path in sorted(SAMPLES.glob("*.jpg"))]
    known = {"image": images, "labels": [[0] * schema.num_attributes] * len(images)}
    return Dataset.from_dict(known).cast_column("image", Image()), schema


def loader_rows(options: argparse.Namespace, model_rate: float) -> list[str]:
    """Rows of the second table."""
    config = ClearConfig.preset(options.presets[0])
    rows, schema = crops_of(options)
    processor = ClearProcessor.for_schema(schema, config.image_height, config.image_width)
    torch.set_num_threads(1)  # as in the processes of a loader
    lines = []
    for is_held in (False, True):
        part = rows.select(range(min(len(rows), options.crops)))
        crops = PersonCrops(part, processor, Augmentation(), cache=is_held)
        for workers in options.workers:
            rate = time_loader(crops, options.batch_size, options.crops, workers)
            kind = "held in memory" if is_held else "decoded"
            lines.append(f"| {kind} | {workers} | {rate:,.0f} | {rate / model_rate:.1f} |")
    return lines


def benchmark(options: argparse.Namespace) -> str:
    """Measure, and return both tables in Markdown."""
    lines = [
        f"{hardware()}; torch {torch.__version__}; batches of {options.batch_size}, medians of "
        f"{options.steps} steps on {options.threads} threads.",
        "",
        "| preset | pixels | number type | crops/s | peak memory, MB | before the model, MB |",
        "|---|---|---|---|---|---|",
    ]
    rates = []
    for preset in options.presets:
        config = ClearConfig.preset(preset)
        pixels = f"{config.image_height} x {config.image_width}"
        for dtype in options.dtypes:
            variant = Variant(preset, dtype, options.batch_size, options.steps, options.threads)
            rate, peak, base = in_new_process(variant)
            rates.append((preset, dtype, rate))
            lines.append(
                f"| {preset} | {pixels} | {dtype} | {rate:.1f} | {peak:,.0f} | {base:,.0f} |"
            )
    name, dtype, fastest = max((r for r in rates if r[0] == options.presets[0]), key=lambda r: r[2])
    lines += [
        "",
        f"Loader alone, crops of {options.dataset or 'the samples'} at the size of {name}:",
        "",
        f"| crops | worker processes | crops/s | times {name} in {dtype} |",
        "|---|---|---|---|",
        *loader_rows(options, fastest),
    ]
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The options, with what each means."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    usual = ["clear-tiny", "clear-small"]
    add("--presets", nargs="+", choices=PRESETS, default=usual, help="(clear-tiny clear-small)")
    add("--dtypes", nargs="+", choices=PRECISIONS, default=[*PRECISIONS], help="(both)")
    add("--batch_size", type=int, default=64, help="crops of a step (64)")
    add("--steps", type=int, default=5, help="timed steps of each variant (5)")
    add("--threads", type=int, default=torch.get_num_threads(), help="of the model (all cores)")
    add("--workers", type=int, nargs="+", default=[0, 1, 2], help="processes that load (0 1 2)")
    add("--crops", type=int, default=4096, help="crops that each loader gives (4096)")
    add("--dataset", help="whose crops are loaded (the samples of the repository)")
    add("--data_dir", help="its folder, for a builder")
    add("--config_name", help="its configuration")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and print the tables."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if min(options.batch_size, options.steps, options.threads, options.crops) < 1:
        parser.error("`--batch_size`, `--steps`, `--threads`, `--crops` must be at least 1.")
    print(benchmark(options))


if __name__ == "__main__":
    main()
