"""Rank the rows of a search: by cosine, or with the evidence of the recognised attributes.

The evidence is that of `evidence_clear.py`, from the probabilities that a gallery stores with each
crop. Without an index every crop gets its score; with one, the nearest by cosine are ranked again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..attributes_clear import UNKNOWN, AttributeSchema
from ..evidence_clear import fused_scores, query_evidence
from .index_settings import EXACT, IndexSettings
from .table import GalleryTable, field_name

CANDIDATES = 50  # times top-k that an index hands on to be ranked by the fused score
LEAST_CANDIDATES = 500
HELD_BYTES = 1 << 29  # a gallery of less is held in memory; of more, each exact search reads it
LEAST, MOST = np.float32(1e-30), np.float32(1 - 2**-24)  # probabilities whose logits are finite


@dataclass(frozen=True)
class Evidence:
    """What the classifier adds to the cosines of one query.

    Args:
        schema: the attributes that the query depends on. labels: (attributes of it,) of 1, 0, -100.
        scale: of the cosine. weight: of the evidence.
    """

    schema: AttributeSchema
    labels: np.ndarray
    scale: float
    weight: float

    @classmethod
    def of(
        cls, schema: AttributeSchema, labels: np.ndarray, scale: float, weight: float
    ) -> "Evidence":
        """For a query: label row (attributes of the schema,).

        An exclusive choice needs the probabilities of all its values, anything else its own alone.
        """
        asked = [n for n, v in zip(schema.attributes, labels, strict=True) if v != UNKNOWN]
        needed = set(asked)
        for group in schema.groups:
            if group.exclusive and needed.intersection(group.options.values()):
                needed.update(group.options.values())
        names = [name for name in schema.attributes if name in needed]
        places = [schema.index(name) for name in names]
        return cls(schema.subset(names), np.asarray(labels)[places], scale, weight)

    @property
    def attributes(self) -> tuple[str, ...]:
        """Whose probabilities are needed."""
        return self.schema.attributes

    def scores(self, cosines: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Shape: (rows,), (rows, attributes) -> (rows,), as `search_scores` ranks them.

        A probability has single precision, so that a logit above 16.6 counts as 16.6.
        """
        bounded = np.clip(probabilities, LEAST, MOST).astype(np.float64)
        logits = np.log(bounded) - np.log1p(-bounded)
        evidence = query_evidence(logits, self.labels[None], self.schema)
        return fused_scores(cosines, evidence[0], self.scale, self.weight)


@dataclass(frozen=True)
class Wanted:
    """The rows that a search wants.

    Args:
        vector: (embed_dim,), unit length. length: that of the query before: cosines are multiplied
            by it. where: SQL. exact: compare with every row. evidence: None: rank by cosine.
    """

    vector: np.ndarray
    length: float
    top_k: int
    where: str | None
    exact: bool
    evidence: Evidence | None


@dataclass(frozen=True)
class _Rows:
    """A whole gallery as of one version.

    Args:
        ids: (rows,). vectors: (rows, embed_dim). probabilities: (attributes, rows).
    """

    version: int
    ids: pa.Array
    vectors: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def read(cls, table: GalleryTable) -> "_Rows":
        version = table.version  # before the rows: of newer ones it only makes reading come again
        rows = table.read(["id", "embedding", "attributes"])
        vectors = rows["embedding"].combine_chunks().flatten().to_numpy()
        return cls(
            version,
            rows["id"].combine_chunks(),
            vectors.reshape(-1, table.identity.embed_dim),
            _columns(rows["attributes"].combine_chunks().flatten(), len(rows)),
        )


class HeldRows:
    """Embeddings and probabilities of a gallery, kept in memory until the gallery changes."""

    def __init__(self, table: GalleryTable):
        self._table, self._rows = table, None

    def fits(self) -> bool:
        """Whether they are few enough."""
        identity = self._table.identity
        width = identity.embed_dim + len(identity.attributes)
        return 4 * width * self._table.count() <= HELD_BYTES

    def best(self, wanted: Wanted) -> pa.Table:
        """`id`, `_cosine` and `_score` of the best rows, best first."""
        held, evidence = self._current(), wanted.evidence
        rows = np.arange(len(held.ids))
        if wanted.where is not None:
            passing = self._table.read(["id"], wanted.where)["id"]
            rows = np.flatnonzero(pc.is_in(held.ids, value_set=passing.combine_chunks()))
        vectors = held.vectors if wanted.where is None else held.vectors[rows]
        cosines = wanted.length * (vectors @ wanted.vector)
        attributes = self._table.identity.attributes
        places = [attributes.index(name) for name in evidence.attributes]
        scores = evidence.scores(cosines, held.probabilities[places][:, rows].T)
        ids = held.ids.take(pa.array(rows))
        return _best(_scored(pa.table({"id": ids}), cosines, scores), wanted.top_k)

    def _current(self) -> _Rows:
        """One object, replaced as a whole, so that threads never mix two versions."""
        rows = self._rows
        if rows is None or rows.version != self._table.version:
            self._rows = rows = None  # both at once would take twice the memory
            self._rows = rows = _Rows.read(self._table)
        return rows


def ranked(
    table: GalleryTable,
    wanted: Wanted,
    columns: Mapping[str, str],
    nearest: Callable[..., pa.Table] | None = None,
    held: HeldRows | None = None,
) -> pa.Table:
    """The rows of a search with their `_cosine` and `_score`, best first.

    Args:
        columns: name in the result -> SQL; one of them is `id`.
        nearest: another way to find rows than `table.nearest`. held: what may be kept in memory.
    """
    settings = IndexSettings(EXACT) if wanted.exact else table.index
    if wanted.evidence is None:
        found = (nearest or table.nearest)(
            wanted.vector, wanted.top_k, wanted.where, settings, columns
        )
        cosines = _cosines(found, wanted)
        return _scored(found, cosines, cosines)
    if settings.kind == EXACT and nearest is None:
        if held is not None and held.fits():
            best = held.best(wanted)
        else:
            best = table.retried(lambda: _best_of_all(table, wanted))
        return _with_columns(table, best, columns)
    return _candidates_ranked(table, wanted, columns, nearest or table.nearest, settings)


def _best_of_all(table: GalleryTable, wanted: Wanted) -> pa.Table:
    """As `HeldRows.best`, in one pass over the table, of which little is in memory at a time."""
    needed = _needed(wanted.evidence)
    best = pa.table({"id": pa.array([], pa.string())})
    best = _scored(best, np.empty(0), np.empty(0))
    for batch in table.batches({"id": "id", "embedding": "embedding", **needed}, wanted.where):
        vectors = batch["embedding"].flatten().to_numpy().reshape(len(batch), -1)
        cosines = (vectors @ wanted.vector).astype(np.float64) * wanted.length
        chances = _columns([batch[name] for name in needed], len(batch))
        rows = pa.table({"id": batch["id"]})
        found = _scored(rows, cosines, wanted.evidence.scores(cosines, chances.T))
        best = _best(pa.concat_tables([best, found]), wanted.top_k)
    return best


def _needed(evidence: Evidence) -> dict[str, str]:
    """Columns of the probabilities that evidence needs: name in the result -> SQL."""
    return {
        f"needed_{place}": f"`attributes`.`{field_name(name)}`"
        for place, name in enumerate(evidence.attributes)
    }


def _candidates_ranked(
    table: GalleryTable,
    wanted: Wanted,
    columns: Mapping[str, str],
    nearest: Callable[..., pa.Table],
    settings: IndexSettings,
) -> pa.Table:
    """Those nearest by cosine, all without an index, ranked by the fused score."""
    needed = _needed(wanted.evidence)
    if settings.kind == EXACT:
        count = max(table.count(), 1)
    else:  # every candidate is compared by its full embedding already
        count = max(CANDIDATES * wanted.top_k, LEAST_CANDIDATES)
        settings = replace(settings, refine=1)
    found = nearest(wanted.vector, count, wanted.where, settings, {**columns, **needed})
    cosines = _cosines(found, wanted)
    chances = _columns([found[name].combine_chunks() for name in needed], len(found))
    scores = wanted.evidence.scores(cosines, chances.T)
    return _best(_scored(found, cosines, scores), wanted.top_k)


def _cosines(found: pa.Table, wanted: Wanted) -> np.ndarray:
    return (1 - found["_distance"].to_numpy()) * wanted.length


def _columns(arrays, num_rows: int) -> np.ndarray:
    """Shape: (attributes, rows)."""
    made = [column.to_numpy(zero_copy_only=False) for column in arrays]
    return np.stack(made) if made else np.empty((0, num_rows), np.float32)


def _scored(rows: pa.Table, cosines: np.ndarray, scores: np.ndarray) -> pa.Table:
    rows = rows.append_column("_cosine", pa.array(cosines, pa.float64()))
    return rows.append_column("_score", pa.array(scores, pa.float64()))


def _best(rows: pa.Table, top_k: int) -> pa.Table:
    """The rows of the highest scores, best first; equal ones in the order of their ids."""
    if len(rows) > top_k:
        scores = rows["_score"].to_numpy()
        kept = np.flatnonzero(scores >= np.partition(scores, -top_k)[-top_k])
        rows = rows.take(pa.array(kept))
    return rows.sort_by([("_score", "descending"), ("id", "ascending")]).slice(0, top_k)


def _with_columns(table: GalleryTable, best: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """What else is wanted of the rows found; those that were removed meanwhile are left out."""
    if not len(best):
        return best
    names = ", ".join(f"'{found}'" for found in best["id"].to_pylist())
    rows = table.read(dict(columns), f"`id` IN ({names})")
    order = pc.index_in(best["id"], value_set=rows["id"].combine_chunks())
    there = order.is_valid()
    rows = rows.take(order.filter(there))
    for name in ("_cosine", "_score"):
        rows = rows.append_column(name, best[name].filter(there))
    return rows


__all__ = ["Evidence", "HeldRows", "Wanted", "ranked"]
