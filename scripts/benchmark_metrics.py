"""Time the retrieval metrics on galleries of full size: seconds and peak memory.

    python scripts/benchmark_metrics.py                     # the validation split of UPAR-2024
    python scripts/benchmark_metrics.py --queries 2242 --gallery 7600

Random unit vectors stand for the embeddings. Each block of queries is scored by a matrix product in
single precision and ranked; as in UPAR, each image answers one query, and many queries have one.
Memory is that of the whole process at its highest, and before the embeddings were made.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np

from clear_par.metrics.bootstrap import retrieval_intervals
from clear_par.metrics.person_retrieval.person_retrieval import mean_over_queries, query_metrics

SHARE_FOUND = 0.1  # of its query in an image: rankings are then neither perfect nor random


def unit_vectors(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Random directions: (count, width) float32."""
    vectors = rng.standard_normal((count, width), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def answers(rng: np.random.Generator, num_queries: int, num_images: int) -> np.ndarray:
    """The query that each image answers, (images,): each query at least once, few of them often."""
    sizes = 1 / np.arange(1, num_queries + 1)
    others = rng.choice(num_queries, num_images - num_queries, p=sizes / sizes.sum())
    return rng.permutation(np.concatenate([np.arange(num_queries), others]))


def blocks(
    queries: np.ndarray, images: np.ndarray, answer: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(scores, relevance) of some queries at a time, each (queries of the block, images)."""
    for start in range(0, len(queries), size):
        numbers = np.arange(start, min(start + size, len(queries)))
        yield queries[numbers] @ images.T, numbers[:, None] == answer


def peak_megabytes() -> float:
    """Most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, else kilobytes


def benchmark(options: argparse.Namespace) -> str:
    """Measure, and return the report."""
    at_start, rng = peak_megabytes(), np.random.default_rng(0)
    queries = unit_vectors(rng, options.queries, options.width)
    answer = answers(rng, options.queries, options.gallery)
    images = unit_vectors(rng, options.gallery, options.width) + SHARE_FOUND * queries[answer]
    start = time.perf_counter()
    per_query = query_metrics(blocks(queries, images, answer, options.block))
    ranked = time.perf_counter()
    scores, intervals = mean_over_queries(per_query), retrieval_intervals(per_query)
    end = time.perf_counter()
    low, high = intervals["mean_average_precision"]
    return "\n".join(
        [
            f"{options.queries:,} queries x {options.gallery:,} images, {options.width} wide, "
            f"blocks of {options.block}",
            f"scores and metrics: {ranked - start:.1f} s; intervals: {end - ranked:.1f} s",
            f"peak memory: {peak_megabytes():,.0f} MB, {at_start:,.0f} MB of it libraries",
            f"mAP {100 * scores['mean_average_precision']:.2f} % "
            f"({100 * low:.2f} to {100 * high:.2f}), Rank-1 {100 * scores['rank_1']:.2f} %",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and print the report."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--queries", type=int, default=3462, help="number of queries (3462)")
    parser.add_argument("--gallery", type=int, default=33407, help="number of images (33407)")
    parser.add_argument("--width", type=int, default=512, help="width of the embeddings (512)")
    parser.add_argument("--block", type=int, default=256, help="queries scored at a time (256)")
    options = parser.parse_args(arguments)
    if min(options.queries, options.width, options.block) < 1 or options.gallery < options.queries:
        parser.error("all must be at least 1, and `--gallery` at least `--queries`.")
    print(benchmark(options))


if __name__ == "__main__":
    main()
