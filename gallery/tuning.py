"""Choose and tune the index with attribute queries, which fall off the distribution of the crops.

An index tuned with image queries looks perfect and loses a third of what a description asks for.
So the queries here are descriptions, made from what the classifier sees in crops of this gallery.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..attributes_clear import PRESENT, UNKNOWN
from .filters import PRESENT_ABOVE
from .index_settings import EXACT, IVF, IndexSettings
from .table import GalleryTable, field_name

if TYPE_CHECKING:
    from .embedding import Embedder

TOP_K = 10
SAMPLE = 2_000  # crops from which queries and filters are made
EXACT_QUERIES = 10  # that exact search is timed with: it misses nothing, and may take seconds
FAST_ENOUGH = 50.0  # milliseconds: exact search is kept while its median is below
PROBED_SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
SHARES = (0.5, 0.2, 0.05)  # of the crops that the filters let through, about


@dataclass(frozen=True)
class Trial:
    """What one setting reaches: recall@10 without filter and under each, and milliseconds.

    The filtered times are those of the slowest filter.
    """

    settings: IndexSettings
    recall: float
    filtered: tuple[float, ...]
    p50: float
    p99: float
    filtered_p50: float = 0.0
    filtered_p99: float = 0.0

    @property
    def worst(self) -> float:
        """The smallest of the recalls."""
        return min((self.recall, *self.filtered))


@dataclass(frozen=True)
class Task:
    """What settings are measured with.

    queries: (queries, embed_dim). filters: SQL. truth: for no filter and for each filter the ids
    that exact search finds for each query.
    """

    queries: np.ndarray
    filters: tuple[str, ...]
    truth: list[list[set[str]]]

    def without_filters(self, count: int) -> "Task":
        """The first queries alone."""
        return Task(self.queries[:count], (), [self.truth[0][:count]])

    @classmethod
    def make(cls, table: GalleryTable, queries: np.ndarray, filters: Sequence[str]) -> "Task":
        """The task with its truth, by comparing with every crop."""
        truth = [exact_ids(table, queries, TOP_K, where) for where in (None, *filters)]
        return cls(queries, tuple(filters), [[set(ids) for ids in found] for found in truth])


def exact_ids(
    table: GalleryTable, queries: np.ndarray, top_k: int, where: str | None = None
) -> list[list[str]]:
    """The nearest rows of each query by numpy, best first; one pass over the table."""
    scores = np.empty((len(queries), 0), np.float32)
    ids = np.empty((len(queries), 0), object)
    for batch in table.batches(["id", "embedding"], where):
        vectors = batch["embedding"].flatten().to_numpy().reshape(len(batch), -1)
        names = np.array(batch["id"].to_pylist(), object)
        scores = np.hstack([scores, queries @ vectors.T])
        ids = np.hstack([ids, np.broadcast_to(names, (len(queries), len(names)))])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
        scores, ids = (np.take_along_axis(kept, best, 1) for kept in (scores, ids))
    return ids.tolist()


def measure(table: GalleryTable, task: Task, settings: IndexSettings) -> Trial:
    """Recall and latency of one setting; the first search, which fills caches, is not timed."""
    recalls, medians, slowest = [], [], []
    for where, truth in zip((None, *task.filters), task.truth, strict=True):
        table.nearest(task.queries[0], TOP_K, where, settings)
        hits, times = 0, []
        for query, wanted in zip(task.queries, truth, strict=True):
            start = time.perf_counter()
            found = table.nearest(query, TOP_K, where, settings)["id"].to_pylist()
            times.append(1000 * (time.perf_counter() - start))
            hits += len(wanted & set(found))
        total = sum(map(len, truth))
        recalls.append(hits / total if total else 1.0)  # a filter may let nothing through
        medians.append(float(np.median(times)))
        slowest.append(float(np.percentile(times, 99)))
    return Trial(
        settings,
        recalls[0],
        tuple(recalls[1:]),
        medians[0],
        slowest[0],
        max(medians[1:], default=0.0),
        max(slowest[1:], default=0.0),
    )


def tune(
    table: GalleryTable,
    task: Task,
    target: float = 0.95,
    kind: str | None = None,
    say: Callable[[str], object] = lambda line: None,
    build_index: Callable[[GalleryTable, IndexSettings], None] = GalleryTable.build_index,
) -> list[Trial]:
    """Choose how the gallery is searched and store that; the last trial returned is the choice.

    Args:
        target: recall@10 to reach without a filter and under each.
        kind: "exact" or "IVF_SQ"; None: exact while it is fast enough.
        say: is told each trial. build_index: builds the index if there is none that fits.
    """
    exact = measure(table, task.without_filters(EXACT_QUERIES), IndexSettings(EXACT))
    say(line_of(exact))
    trials = [exact]
    if kind == EXACT or (kind is None and exact.p50 <= FAST_ENOUGH):
        chosen = exact
    else:
        _ensure_index(table, build_index)
        for settings in _candidates(table.index):
            trials.append(measure(table, task, settings))
            say(line_of(trials[-1]))
            if trials[-1].worst >= target:
                break
        reached = [trial for trial in trials[1:] if trial.worst >= target]
        chosen = reached[0] if reached else max(trials[1:], key=lambda trial: trial.worst)
    settings = replace(chosen.settings, measured=_record(chosen, task, table.count()))
    table.store_index_settings(settings)
    return [*trials, replace(chosen, settings=settings)]


def _ensure_index(table: GalleryTable, build_index: Callable) -> None:
    """An index of the size that so many crops need."""
    wanted = IndexSettings.for_index(table.count())
    there = table.index
    fits = there.kind == IVF and 0.5 <= there.num_partitions / wanted.num_partitions <= 2
    if not fits or not table.has_index:
        build_index(table, wanted)


def _candidates(there: IndexSettings):
    """Ever wider searches."""
    probes = (max(math.ceil(there.num_partitions * share), 1) for share in PROBED_SHARES)
    for count in dict.fromkeys(probes):
        yield replace(there, num_probes=count, measured={})


def _record(trial: Trial, task: Task, num_rows: int) -> dict:
    return {
        "rows": num_rows,
        "queries": len(task.queries),
        "top_k": TOP_K,
        "recall": round(trial.recall, 4),
        "recall_filtered": [round(recall, 4) for recall in trial.filtered],
        "p50_ms": round(trial.p50, 2),
        "p99_ms": round(trial.p99, 2),
        "p50_ms_filtered": round(trial.filtered_p50, 2),
        "p99_ms_filtered": round(trial.filtered_p99, 2),
    }


def line_of(trial: Trial) -> str:
    """A trial in one line."""
    settings = trial.settings
    name = settings.kind
    if settings.kind != EXACT:
        name += f" {settings.num_probes} of {settings.num_partitions} lists, x{settings.refine}"
    line = f"{name}: recall@{TOP_K} {trial.recall:.3f}, {trial.p50:.1f} ms (p99 {trial.p99:.1f})"
    if not trial.filtered:
        return line
    recalls = " ".join(f"{recall:.3f}" for recall in trial.filtered)
    return f"{line}; filtered {recalls}, {trial.filtered_p50:.1f} ms (p99 {trial.filtered_p99:.1f})"


# ---- what people would ask this gallery for -------------------------------------------------


def make_task(table: GalleryTable, embedder: "Embedder", count: int, seed: int = 0) -> Task:
    """Descriptions of two to five attributes that occur in the gallery, and three filters.

    Raises:
        ValueError: when the gallery is empty.
    """
    chances = _sample(table)
    labels = _descriptions(chances, embedder, count, np.random.default_rng(seed))
    parts = (labels[start : start + 64] for start in range(0, len(labels), 64))
    queries = np.concatenate([embedder.embed_labels(part) for part in parts])
    return Task.make(table, queries, _filters(chances, table.identity.attributes))


def _sample(table: GalleryTable) -> np.ndarray:
    """(crops, attributes) probabilities of some crops, spread over the table."""
    step, rows, at = max(table.count() // SAMPLE, 1), [], 0
    for batch in table.batches(["attributes"]):
        places = pa.array(range(-at % step, len(batch), step), pa.int64())  # may be none
        cells = batch["attributes"].take(places)
        rows.append(np.stack([column.to_numpy() for column in cells.flatten()], axis=1))
        at += len(batch)
    if not at:
        raise ValueError(f"`gallery` must hold crops to be tuned, got {table.uri!r} with none.")
    return np.concatenate(rows)


def _descriptions(
    chances: np.ndarray, embedder: "Embedder", count: int, rng: np.random.Generator
) -> np.ndarray:
    """(count, attributes) label rows: some of what one crop shows, the rest unsaid."""
    labels = np.full((count, chances.shape[1]), UNKNOWN)
    for row in labels:
        crop = chances[rng.integers(len(chances))]
        shown = np.flatnonzero(crop > PRESENT_ABOVE)
        shown = shown if len(shown) else np.array([crop.argmax()])
        chosen = rng.permutation(shown)[: rng.integers(2, 6)]
        names = [embedder.schema.attributes[index] for index in chosen]
        row[chosen] = PRESENT
        row[:] = _completed(embedder, names, row)
    return labels


def _completed(embedder: "Embedder", names: list[str], row: np.ndarray) -> np.ndarray:
    """As a query of these names would be: a choice says that its other values are absent."""
    try:
        return np.array(embedder.schema.query_values(names))
    except ValueError:  # the classifier saw two values of an exclusive choice
        return row


def _filters(chances: np.ndarray, attributes: Sequence[str]) -> list[str]:
    """Conditions on predicted attributes that let about a half, a fifth and a twentieth pass."""
    shares = (chances > PRESENT_ABOVE).mean(axis=0)
    chosen = dict.fromkeys(int(np.abs(shares - share).argmin()) for share in SHARES)
    return [f"`attributes`.`{field_name(attributes[i])}` > {PRESENT_ABOVE}" for i in chosen]


__all__ = ["Task", "Trial", "exact_ids", "line_of", "make_task", "measure", "tune"]
