"""Measure a large gallery: build time, disk, latency, recall and memory, against numpy.

    python scripts/benchmark_gallery.py                      # a million embeddings of width 512
    python scripts/benchmark_gallery.py --rows 100000 --output benchmark.json

The embeddings are drawn: unit vectors in clusters of very different sizes. Image-like queries are
perturbed crops. Attribute-like queries lie off the distribution, as those of a description do: a
mean of several cluster centres, moved by a direction that all queries share and crops do not have.
Three filters let about a half, a fifth and a twentieth of the crops pass; they depend on the
cluster, as predicted attributes do. numpy compares every query with every crop in the same run,
in one pass over the table, so its time is that of a batch; `numpy, one query` has all embeddings
in memory, in a process of its own after the gallery was measured.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa

from clear_par.attributes_clear import AttributeSchema
from clear_par.gallery.identity import Identity
from clear_par.gallery.index_settings import EXACT, IVF, IndexSettings
from clear_par.gallery.table import GalleryTable
from clear_par.gallery.tuning import TOP_K, Task, Trial, exact_ids, measure, tune

ATTRIBUTES = ("half", "fifth", "twentieth")
SHARES = (0.5, 0.2, 0.05)
FILTERS = tuple(f"`attributes`.`{name}` > 0.5" for name in ATTRIBUTES)
NOISE = 0.6  # length of a crop's deviation from its cluster's centre
OFF_AXIS = 0.8  # length of the shift that attribute-like queries have in common


@dataclass(frozen=True)
class Drawn:
    """The distribution that crops and queries are drawn from.

    centres: (clusters, width). sizes: (clusters,) probabilities. leaning: (clusters, attributes)
    probabilities of each attribute in each cluster.
    """

    centres: np.ndarray
    sizes: np.ndarray
    leaning: np.ndarray

    @classmethod
    def make(cls, clusters: int, width: int, rng: np.random.Generator) -> "Drawn":
        """Cluster sizes of a long tail; half of an attribute's crops come from few clusters."""
        sizes = rng.pareto(1.5, clusters) + 0.1
        leaning = np.stack([rng.beta(0.3, 0.3 * (1 / s - 1), clusters) for s in SHARES], axis=1)
        return cls(unit(rng.standard_normal((clusters, width))), sizes / sizes.sum(), leaning)

    def crops(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(count, width) unit vectors and (count, attributes) probabilities."""
        cluster = rng.choice(len(self.sizes), count, p=self.sizes)
        noise = rng.standard_normal((count, self.centres.shape[1]), dtype=np.float32)
        noise *= NOISE / np.sqrt(noise.shape[1])
        shows = rng.random((count, len(SHARES))) < self.leaning[cluster]
        chances = 0.5 + (shows - 0.5) * rng.uniform(0.1, 1, shows.shape)
        return unit(self.centres[cluster] + noise), chances.astype(np.float32)

    def attribute_queries(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, width): means of two to five centres, off the distribution of the crops."""
        axis = unit(rng.standard_normal((1, self.centres.shape[1])))[0]
        chosen = [rng.integers(0, len(self.centres), rng.integers(2, 6)) for _ in range(count)]
        mixed = np.stack([self.centres[clusters].mean(axis=0) for clusters in chosen])
        return unit(unit(mixed) + OFF_AXIS * axis)

    def image_queries(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, width): crops that the gallery does not have."""
        return self.crops(count, rng)[0]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1, in single precision."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def identity(width: int) -> Identity:
    """Of a model that does not exist."""
    schema = AttributeSchema.from_names(ATTRIBUTES, "drawn").to_dict()
    return Identity("drawn", "drawn", "0" * 16, "0" * 16, width, schema)


def batches(drawn: Drawn, options: argparse.Namespace, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of the gallery, in commits of `--commit`."""
    rng = np.random.default_rng(options.seed + 1)
    for first in range(0, options.rows, options.commit):
        count = min(options.commit, options.rows - first)
        vectors, chances = drawn.crops(count, rng)
        numbers = range(first, first + count)
        data = {
            "id": [f"{number:032x}" for number in numbers],
            "source": ["drawn"] * count,
            "image": [str(number) for number in numbers],
            "camera": [f"c{number % 16}" for number in numbers],
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.ravel()), options.width
            ),
            "attributes": pa.StructArray.from_arrays(
                [pa.array(column) for column in chances.T], list(ATTRIBUTES)
            ),
        }
        nothing = pa.nulls(count)
        yield pa.Table.from_arrays(
            [pa.array(data.get(f.name, nothing), f.type) for f in schema], schema=schema
        )


def timed(work, *arguments) -> tuple[float, object]:
    """Seconds, and the result."""
    start = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - start, result


def write_rows(table: GalleryTable, drawn: Drawn, options: argparse.Namespace) -> None:
    """Write all rows; drawing them is part of the time."""
    with table.writing():
        for rows in batches(drawn, options, table.schema):
            table.append(rows)


def peak_memory() -> float:
    """Gigabytes that this process has had in memory at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)


def benchmark(options: argparse.Namespace, folder: Path) -> dict:
    """Build, tune, measure; the numbers of each step."""
    drawn = Drawn.make(options.clusters, options.width, np.random.default_rng(options.seed))
    table = GalleryTable.create(str(folder / "gallery"), identity(options.width), {})
    report = {"rows": options.rows, "width": options.width, "machine": machine()}
    report["write_s"], _ = timed(write_rows, table, drawn, options)
    say(f"{options.rows} rows written in {report['write_s']:.1f} s")
    report["index_s"], _ = timed(table.build_index, IndexSettings.for_index(options.rows))
    report["settle_s"], _ = timed(table.settle)
    report["disk_gb"] = table.facts()["disk_bytes"] / 1e9
    say(f"index in {report['index_s']:.1f} s, tidied in {report['settle_s']:.1f} s")
    rng = np.random.default_rng(options.seed + 2)
    queries = drawn.attribute_queries(options.queries, rng)
    report["numpy_pass_s"], task = timed(Task.make, table, queries, FILTERS)
    tuning_queries = drawn.attribute_queries(options.queries, rng)  # others than are reported
    trials = tune(table, Task.make(table, tuning_queries, FILTERS), options.recall, IVF, say)
    chosen = trials[-1].settings
    report["settings"] = {
        "lists": chosen.num_partitions,
        "probes": chosen.num_probes,
        "refine": chosen.refine,
    }
    report["attribute_queries"] = numbers(measure(table, task, chosen))
    images = drawn.image_queries(options.queries, rng)
    image_truth = [[set(ids) for ids in exact_ids(table, images, TOP_K)]]
    report["image_queries"] = numbers(measure(table, Task(images, (), image_truth), chosen))
    few = task.without_filters(options.exact_queries)
    report["engine_exact"] = numbers(measure(table, few, IndexSettings(EXACT)))
    report["shares"] = [table.count(where) / options.rows for where in FILTERS]
    report["peak_memory_gb"] = peak_memory()
    report["numpy_one_query_ms"] = numpy_latency(folder, options, queries[: options.exact_queries])
    return report


def numbers(trial: Trial) -> dict:
    """A trial as plain numbers."""
    return {
        "recall": trial.recall,
        "recall_filtered": list(trial.filtered),
        "p50_ms": trial.p50,
        "p99_ms": trial.p99,
        "p50_ms_filtered": trial.filtered_p50,
        "p99_ms_filtered": trial.filtered_p99,
    }


def numpy_latency(folder: Path, options: argparse.Namespace, queries: np.ndarray) -> float:
    """Median milliseconds of one query over all embeddings in memory, in another process."""
    np.save(folder / "queries.npy", queries)
    command = [sys.executable, __file__, "--numpy-only", str(folder), "--width", str(options.width)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(result.stdout)


def numpy_only(folder: Path, width: int) -> float:
    """What `numpy_latency` starts."""
    table = GalleryTable.open(str(folder / "gallery"))
    vectors = np.empty((table.count(), width), np.float32)
    first = 0
    for batch in table.batches(["embedding"]):
        rows = slice(first, first + len(batch))
        vectors[rows] = batch["embedding"].flatten().to_numpy().reshape(-1, width)
        first = rows.stop
    seconds = []
    for query in np.load(folder / "queries.npy"):
        start = time.perf_counter()
        scores = vectors @ query
        best = np.argpartition(-scores, TOP_K)[:TOP_K]
        best[np.argsort(-scores[best])]
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))


def machine() -> str:
    """What the numbers depend on; the load counts processes that wanted a core at the start."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{platform.machine()}, {os.cpu_count()} cores{load}, lancedb {lancedb.__version__}"


def say(line: str) -> None:
    """Progress, apart from the report."""
    print(line, file=sys.stderr, flush=True)


def as_markdown(report: dict) -> str:
    """The report for docs/gallery.md."""
    settings, shares = report["settings"], ", ".join(f"{s:.1%}" for s in report["shares"])
    lines = [
        f"{report['rows']:,} crops, width {report['width']}; {report['machine']}.",
        "",
        f"Written in {report['write_s']:.0f} s, index in {report['index_s']:.0f} s, tidied in "
        f"{report['settle_s']:.0f} s; {report['disk_gb']:.2f} GB on the disk; at most "
        f"{report['peak_memory_gb']:.2f} GB in memory.",
        f"{settings['probes']} of {settings['lists']} lists, twice as many under a filter, refined "
        f"x{settings['refine']}. Filters let {shares} of the crops pass.",
        "",
        "| search | recall@10 | under the filters | p50, p99 ms | p50, p99 ms filtered |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in ("attribute_queries", "image_queries", "engine_exact"):
        row = report[name]
        filtered = " / ".join(f"{recall:.3f}" for recall in row["recall_filtered"]) or "-"
        with_filter = "-"
        if row["recall_filtered"]:
            with_filter = f"{row['p50_ms_filtered']:.1f}, {row['p99_ms_filtered']:.1f}"
        lines.append(
            f"| {name.replace('_', ' ')} | {row['recall']:.3f} | {filtered} | "
            f"{row['p50_ms']:.1f}, {row['p99_ms']:.1f} | {with_filter} |"
        )
    lines.append(f"| numpy, one query | 1 | - | {report['numpy_one_query_ms']:.1f} | - |")
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--rows", type=int, default=1_000_000, help="crops (1000000)")
    add("--width", type=int, default=512, help="of the embeddings (512)")
    add("--clusters", type=int, default=2_000, help="of the crops (2000)")
    add("--commit", type=int, default=20_000, help="rows of one commit (20000)")
    add("--queries", type=int, default=100, help="of each kind (100)")
    add("--exact-queries", type=int, default=10, help="asked of exact search as well (10)")
    add("--recall", type=float, default=0.97, help="to tune for; other queries are reported (0.97)")
    add("--seed", type=int, default=0, help="of everything drawn (0)")
    add("--folder", type=Path, help="where the gallery is made and removed (a temporary folder)")
    add("--output", type=Path, help="JSON file of all numbers")
    add("--numpy-only", type=Path, help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = build_parser().parse_args(arguments)
    if options.numpy_only is not None:
        print(numpy_only(options.numpy_only, options.width))
        return
    folder = Path(tempfile.mkdtemp(prefix="gallery-", dir=options.folder))
    try:
        report = benchmark(options, folder)
    finally:
        shutil.rmtree(folder)
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2) + "\n")
    print(as_markdown(report))


if __name__ == "__main__":
    main()
