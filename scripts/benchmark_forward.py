"""Time the forward pass: crops per second by number type, threads, and eager or compiled.

    python scripts/benchmark_forward.py --preset clear-base --compile

Runs of all variants alternate, so that a slow minute of the machine meets each of them; the table
gives medians. Work is counted operation by operation on one crop, with attention taken apart into
its matrix products, as two operations for a multiplication and an addition. The last column is the
share of what a large matrix product reaches here with the same number type and threads. Compiled
means block by block (`accelerate.utils.compile_regions`): equal blocks are compiled once, so that
the paper's size takes a minute or two for each variant instead of a quarter of an hour.
"""

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from accelerate.utils import compile_regions
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from clear_par.configuration_clear import PRESETS, ClearConfig
from clear_par.modeling_clear import ClearForAttributeRecognition

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MATRIX = 2048  # rows and columns of the reference product: far larger than any cache
SHAPES_OF_A_BLOCK = 64  # more than all stages, number types and threads need; the default is 8


@dataclass
class Variant:
    """One row of the table: how the model runs, and the seconds of each run on one batch."""

    dtype: str
    threads: int
    is_compiled: bool
    run: Callable[[], object]
    seconds: list[float]


def count_operations(config: ClearConfig) -> int:
    """Floating-point operations of one crop: matrix products and convolutions."""
    with torch.device("meta"):
        model = ClearForAttributeRecognition(config).eval()
        pixel_values = torch.empty(1, 3, config.image_height, config.image_width)
    counter = FlopCounterMode(display=False)
    # A fused kernel would be one opaque operation to the counter.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(pixel_values)
    return counter.get_total_flops()


def build_variants(config: ClearConfig, options: argparse.Namespace) -> list[Variant]:
    """Every combination asked for; models of one number type share their weights."""
    variants = []
    for name in options.dtypes:
        model = ClearForAttributeRecognition(config).eval().to(DTYPES[name])
        shape = (options.batch_size, 3, config.image_height, config.image_width)
        pixel_values = torch.randn(shape).to(DTYPES[name])
        forwards = {False: model}
        if options.compile:
            forwards[True] = compile_regions(model, dynamic=False)
        for threads, (is_compiled, forward) in itertools.product(options.threads, forwards.items()):
            run = bind(forward, pixel_values)
            variants.append(Variant(name, threads, is_compiled, run, []))
    return variants


def bind(forward: Callable, *arguments: torch.Tensor) -> Callable[[], object]:
    """A call without arguments."""
    return lambda: forward(*arguments)


def seconds_of(run: Callable[[], object], threads: int) -> float:
    """Seconds of one run with so many threads."""
    torch.set_num_threads(threads)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def matrix_rates(options: argparse.Namespace) -> dict[tuple[str, int], float]:
    """Operations per second of a large matrix product, by number type and threads; medians."""
    rates = {}
    for name, threads in itertools.product(options.dtypes, options.threads):
        left, right = (torch.randn(MATRIX, MATRIX).to(DTYPES[name]) for _ in range(2))
        run = bind(torch.matmul, left, right)
        seconds = [seconds_of(run, threads) for _ in range(options.runs + 1)][1:]  # first: warm-up
        rates[name, threads] = 2 * MATRIX**3 / statistics.median(seconds)
    return rates


def table(
    variants: list[Variant], operations: int, batch: int, rates: dict[tuple[str, int], float]
) -> str:
    """The results in Markdown."""
    lines = [
        "| number type | threads | mode | crops/s | GFLOP/s | matrix product, GFLOP/s | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant in variants:
        crops = batch / statistics.median(variant.seconds)
        rate = rates[variant.dtype, variant.threads]
        mode = "compiled" if variant.is_compiled else "eager"
        lines.append(
            f"| {variant.dtype} | {variant.threads} | {mode} | {crops:.2f} | "
            f"{crops * operations / 1e9:.1f} | {rate / 1e9:.1f} | {crops * operations / rate:.2f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """Processor and library, for the line above the table."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} with {capability}, torch {torch.__version__}"


@torch.inference_mode()
def benchmark(options: argparse.Namespace) -> str:
    """Measure, and return the report in Markdown."""
    torch._dynamo.config.recompile_limit = SHAPES_OF_A_BLOCK
    config = ClearConfig.preset(options.preset)
    operations, variants = count_operations(config), build_variants(config, options)
    rates = matrix_rates(options)
    for variant in variants:  # compiles, and fills the caches
        seconds_of(variant.run, variant.threads)
    for _ in range(options.runs):
        for variant in variants:
            variant.seconds.append(seconds_of(variant.run, variant.threads))
    title = (
        f"{options.preset}: {config.image_height} x {config.image_width} pixels, batches of "
        f"{options.batch_size}, medians of {options.runs} alternating runs, "
        f"{operations / 1e9:.2f} GFLOP a crop; {machine()}."
    )
    return f"{title}\n\n{table(variants, operations, options.batch_size, rates)}"


def build_parser() -> argparse.ArgumentParser:
    """The options, with what each means."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="clear-base", help="sizes of the model (clear-base)")
    add("--batch-size", type=int, default=8, help="crops of one run (8)")
    add("--runs", type=int, default=5, help="timed runs of each variant (5)")
    add("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (1 2)")
    add("--dtypes", nargs="+", choices=DTYPES, default=[*DTYPES], help="number types (both)")
    add("--compile", action="store_true", help="time compiled blocks as well; needs a C++ compiler")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and print the table."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if min(options.batch_size, options.runs, *options.threads) < 1:
        parser.error("`--batch-size`, `--runs` and `--threads` must be at least 1.")
    print(benchmark(options))


if __name__ == "__main__":
    main()
