"""Search: a description, an example image or both; a filter; hits with what they match."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..attributes_clear import ABSENT, PRESENT, UNKNOWN, AttributeSchema
from .filters import PRESENT_ABOVE, compile_filter
from .ranking import HeldRows, Wanted, ranked
from .table import RESULT, GalleryTable, field_name

if TYPE_CHECKING:  # a model takes seconds to import, and most commands need none
    from .embedding import Embedder

MOST_HITS = 10_000


@dataclass(frozen=True)
class Search:
    """One search.

    Args:
        query: dict ({"upper colour": "red", "backpack": True}), list of names, or free text.
        image: path of an example image, or its bytes. filter: see `compile_filter`.
        image_weight: share of the image's score when both are given.
        exact: compare with every crop, whatever index there is.
        evidence: let the probabilities of the attributes asked for count beside the cosine, as much
            as the adapter says; False: rank by the cosine alone.
    """

    query: str | Mapping | Sequence[str] | None = None
    image: str | bytes | None = None
    filter: str | None = None
    top_k: int = 10
    image_weight: float = 0.5
    exact: bool = False
    evidence: bool = True

    def __post_init__(self):
        if self.query is None and self.image is None:
            raise ValueError("`query` or `image` must be given, got neither.")
        if not isinstance(self.top_k, int) or not 1 <= self.top_k <= MOST_HITS:
            raise ValueError(f"`top_k` must be from 1 to {MOST_HITS}, got {self.top_k!r}.")
        weight = self.image_weight
        if not isinstance(weight, (int, float)) or not 0 <= weight <= 1:
            raise ValueError(f"`image_weight` must be from 0 to 1, got {weight!r}.")
        if not isinstance(self.image, (str, Path, bytes, type(None))):
            raise ValueError(f"`image` must be a path or bytes, got {self.image!r}.")


@dataclass(frozen=True)
class Hit:
    """One crop found.

    score: what ranks: the cosine, or with evidence `fused_scores`. matched, missed: the attributes
    asked for (or shown by the example image) with the probability that the classifier gives to what
    was asked. cosine: of query and crop, or the weighted mean of two.
    """

    rank: int
    score: float
    id: str
    source: str
    image: str
    camera: str | None = None
    time: datetime | None = None
    metadata: dict = field(default_factory=dict)
    matched: dict[str, float] = field(default_factory=dict)
    missed: dict[str, float] = field(default_factory=dict)
    cosine: float = 0.0


@dataclass(frozen=True)
class Found:
    """The answer to one search: text says how it was understood; milliseconds, embedding aside.

    fused: whether evidence counts in the scores.
    """

    search: Search
    text: str
    hits: list[Hit]
    milliseconds: float
    notes: tuple[str, ...] = ()
    fused: bool = False


@dataclass(frozen=True)
class _Prepared:
    """A search as it is run, and the attributes asked: name -> (attribute, wanted)."""

    wanted: Wanted
    asked: dict[str, tuple[str, bool]]
    text: str
    notes: tuple[str, ...]


def run_searches(
    table: GalleryTable,
    embedder: "Embedder",
    searches: Sequence[Search],
    nearest=None,
    held: HeldRows | None = None,
) -> list[Found]:
    """Answer searches; all are checked before the first is run.

    Args:
        nearest: another way to find the rows than `table.nearest`, with its arguments.
        held: what may be kept in memory between searches.

    Raises:
        ValueError: for a query, filter or image that cannot be understood.
    """
    is_filtered = any(search.filter is not None for search in searches)
    filters = table.filter_columns() if is_filtered else {}
    free = [name for name in table.metadata_columns if name not in RESULT]
    prepared = [_prepare(search, embedder, filters) for search in searches]
    return [
        _answer(lambda *asked: ranked(table, *asked, nearest, held), free, search, made)
        for search, made in zip(searches, prepared, strict=True)
    ]


def _prepare(search: Search, embedder: "Embedder", filters: Mapping) -> _Prepared:
    where = compile_filter(search.filter, filters) if search.filter is not None else None
    parts, asked, text, notes, evidence = [], {}, [], (), None
    schema = embedder.schema
    if search.query is not None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            labels = embedder.processor.query_values(search.query)
        notes = tuple(str(warning.message) for warning in caught)
        asked |= asked_attributes(schema, labels)
        text.append(", ".join(asked))
        parts.append(embedder.embed_labels(np.array([labels]))[0])
        if search.evidence:
            share = 1 if search.image is None else 1 - search.image_weight
            evidence = embedder.evidence(labels, share)
    if search.image is not None:
        embedded = embedder.embed_image(_content(search.image))
        shown = np.where(embedded.probabilities > PRESENT_ABOVE, PRESENT, UNKNOWN)
        asked = asked or asked_attributes(schema, shown.tolist())
        text.append("like the image")
        parts.append(embedded.embedding)
    vector = parts[0]
    if len(parts) == 2:
        vector = (1 - search.image_weight) * parts[0] + search.image_weight * parts[1]
    length = float(np.linalg.norm(vector))
    exact, top_k = search.exact, search.top_k
    wanted = Wanted(vector / length, length, top_k, where, exact, evidence)
    return _Prepared(wanted, asked, ", ".join(text), notes)


def _content(image: str | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise ValueError(f"`image` must be a readable file, got {image!r}: {error}") from None


def asked_attributes(schema: AttributeSchema, labels: Sequence[int]) -> dict:
    """What a label row asks for: readable name -> (attribute, wanted or unwanted).

    Of a choice only what is wanted, unless all that is said of it is unwanted.

    >>> asked_attributes(AttributeSchema.from_names(["hat", "bag"]), [1, 0])
    {'hat': ('hat', True), 'no bag': ('bag', False)}
    """
    values = dict(zip(schema.attributes, labels, strict=True))
    asked = {}
    for group in schema.groups:
        said = {v: values[attribute] for v, attribute in group.options.items()}
        wanted = PRESENT if PRESENT in said.values() else ABSENT
        for value, label in said.items():
            if label == wanted:
                name = f"{'' if wanted == PRESENT else 'no '}{group.name} {value}"
                asked[name] = (group.options[value], wanted == PRESENT)
    for flag in schema.flags:
        if values[flag.attribute] != UNKNOWN:
            wanted = values[flag.attribute] == PRESENT
            asked[flag.name if wanted else f"no {flag.name}"] = (flag.attribute, wanted)
    return asked


def _answer(find, free: list[str], search: Search, made: _Prepared) -> Found:
    """Args: find: finds the rows that are wanted. free: the columns of free metadata."""
    names = {name: f"asked_{number}" for number, name in enumerate(made.asked)}
    columns = {
        **RESULT,
        **{f"free_{number}": f"`{name}`" for number, name in enumerate(free)},
        **{names[n]: f"`attributes`.`{field_name(a)}`" for n, (a, _) in made.asked.items()},
    }
    start = time.perf_counter()
    rows = find(made.wanted, columns).to_pylist()
    milliseconds = 1000 * (time.perf_counter() - start)
    hits = []
    for rank, row in enumerate(rows, start=1):
        chances = {
            name: row[names[name]] if wanted else 1 - row[names[name]]
            for name, (_, wanted) in made.asked.items()
        }
        hits.append(
            Hit(
                rank=rank,
                score=row["_score"],
                cosine=row["_cosine"],
                **{name: row[name] for name in RESULT},
                metadata={name: row[f"free_{number}"] for number, name in enumerate(free)},
                matched={n: p for n, p in chances.items() if p > PRESENT_ABOVE},
                missed={n: p for n, p in chances.items() if p <= PRESENT_ABOVE},
            )
        )
    is_fused = made.wanted.evidence is not None
    return Found(search, made.text, hits, milliseconds, made.notes, is_fused)


__all__ = ["Found", "Hit", "Search", "asked_attributes", "run_searches"]
