"""Fill a gallery: read, skip what is there, embed, write in commits.

A commit is whole or absent. A build that was killed starts again and skips the rows that are there
by the hash of the image file, which is also how duplicates are found.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from .embedded import DECODERS, Embedded, reason
from .index_settings import IndexSettings
from .metadata import column_name, convert, normal_type
from .sources import Item, Source
from .table import GalleryTable, field_name

COMMIT_ROWS = 1_024  # what a kill can cost: a few seconds of embedding
REPORTED = 10  # broken images that are named in a summary


@dataclass(frozen=True)
class ReadItem:
    """An image file with its id, the hash of its bytes; `error` says why there is none."""

    item: Item
    id: str = ""
    content: bytes = b""
    error: str = ""


Embed = Callable[
    [Iterable[Sequence[ReadItem]]], Iterator[tuple[Sequence[ReadItem], list[Embedded]]]
]


@dataclass(frozen=True)
class Workers:
    """Who embeds, and how the shares of several processes come together.

    Args:
        embed: embeds batches, in their order. rank, count: of this process. gather: the lists of
            all processes as one, in the order of their ranks. build_index: how an index is built.
    """

    embed: Embed
    rank: int = 0
    count: int = 1
    gather: Callable[[list], list] = list
    build_index: Callable[[GalleryTable, IndexSettings], None] = GalleryTable.build_index

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0


@dataclass
class BuildReport:
    """What a build has done.

    added: rows written. known: images that the gallery had. duplicates: images with the same bytes
    as another one of this run. broken: (image, reason) of those that could not be read. is_main:
    whether this process wrote.
    """

    added: int = 0
    known: int = 0
    duplicates: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0
    is_main: bool = True

    def summary(self) -> str:
        """The numbers, and the first of the broken images, in a few lines."""
        speed = self.added / self.seconds if self.seconds else 0
        lines = [
            f"{self.added} crops added in {self.seconds:.1f} s ({speed:.0f} crops/s); "
            f"{self.known} were there, {self.duplicates} duplicates skipped, "
            f"{len(self.broken)} broken images skipped."
        ]
        lines += [f"  broken: {image}: {why}" for image, why in self.broken[:REPORTED]]
        if len(self.broken) > REPORTED:
            lines.append(f"  and {len(self.broken) - REPORTED} more")
        return "\n".join(lines)


def hash_of(content: bytes) -> str:
    """The id of an image file: 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(content).hexdigest()[:32]


def column_names(source: Source, table: GalleryTable | None) -> dict[str, tuple[str, pa.DataType]]:
    """Metadata field -> column and type; a column that a table has keeps the type it has there.

    Raises:
        ValueError: when two fields would be one column.
    """
    there = {} if table is None else table.metadata_columns
    found = {}
    for name, kind in source.columns.items():
        column = column_name(name)
        if column in (taken for taken, _ in found.values()):
            raise ValueError(
                f"`images` must have metadata fields of different names, got {name!r} and another "
                f"that both become the column {column!r}. Rename one."
            )
        found[name] = (column, there.get(column, normal_type(column, kind)))
    return found


def fill(table: GalleryTable, source: Source, workers: Workers, batch_size: int) -> BuildReport:
    """Add all images of a source that the gallery does not have, then tidy the table.

    Raises:
        ValueError: when a metadata value does not fit its column, or no image can be read.
    """
    start, columns = time.perf_counter(), column_names(source, table)
    if workers.is_main:
        table.add_columns(dict(columns.values()))
    reader = _Reader(source, table.ids(), workers, batch_size)
    writer = _Writer(table, source.name, columns)
    with tqdm(total=source.count, desc="embed", unit="crop", disable=not workers.is_main) as bar:
        for share in workers.embed(reader.batches()):
            for read, embedded in workers.gather([share]):
                writer.take(zip(read, embedded, strict=True), is_main=workers.is_main)
            bar.update(min(batch_size * workers.count, source.count - bar.n))
    if workers.is_main:
        writer.commit()
        table.settle(workers.build_index)
    counts = np.sum(workers.gather([(reader.known,)]), axis=0)
    repeated = workers.gather(reader.repeated)
    report = writer.report(repeated)
    report.known, report.seconds = int(counts[0]), time.perf_counter() - start
    report.is_main = workers.is_main
    if len(report.broken) == source.count:
        raise ValueError(
            f"`images` must hold images that can be read, got {source.name!r} with none: "
            f"{report.broken[0][0]}: {report.broken[0][1]}"
        )
    return report


class _Reader:
    """Reads this process's batches and leaves out what is known."""

    def __init__(self, source: Source, ids: set[str], workers: Workers, batch_size: int):
        self.source, self.seen, self.workers, self.size = source, set(), workers, batch_size
        self.ids, self.known, self.repeated = ids, 0, []

    def batches(self) -> Iterator[list[ReadItem]]:
        with ThreadPoolExecutor(DECODERS) as pool:
            items, first = self.source.items(), self.workers.rank * self.size
            while in_round := list(islice(items, self.size * self.workers.count)):
                read = pool.map(_read, in_round[first : first + self.size])
                yield [found for found in read if self._is_new(found)]

    def _is_new(self, found: ReadItem) -> bool:
        if found.id in self.ids:
            self.known += 1
            return False
        if found.id in self.seen:
            self.repeated.append((found.item.image, found.id))
            return False
        if found.id:
            self.seen.add(found.id)
        return True


def _read(item: Item) -> ReadItem:
    try:
        content = item.read()
    except Exception as error:  # a damaged archive raises whatever it likes
        return ReadItem(item, error=reason(error))
    return ReadItem(item, hash_of(content), content)


class _Writer:
    """Turns embedded images into rows, and rows into commits."""

    def __init__(self, table: GalleryTable, source: str, columns: dict):
        self.table, self.source, self.columns = table, source, columns
        self.rows: list[tuple[ReadItem, Embedded]] = []
        self.written: set[str] = set()
        self.broken: dict[str, str] = {}
        self.broken_ids: dict[str, str] = {}
        self.repeated: list[tuple[str, str]] = []

    def take(self, found: Iterable[tuple[ReadItem, Embedded]], is_main: bool) -> None:
        for read, embedded in found:
            if embedded.error:
                self.broken[read.item.image] = embedded.error
                self.broken_ids[read.id] = embedded.error
            elif read.id in self.written:  # by another process of the same round
                self.repeated.append((read.item.image, read.id))
            else:
                self.written.add(read.id)
                if is_main:
                    self.rows.append((read, embedded))
        if len(self.rows) >= COMMIT_ROWS:
            self.commit()

    def commit(self) -> None:
        if self.rows:
            self.table.append(self._to_table())
            self.rows = []

    def _to_table(self) -> pa.Table:
        reads, embedded = zip(*self.rows, strict=True)
        schema, identity = self.table.schema, self.table.identity
        vectors = np.stack([one.embedding for one in embedded]).astype(np.float32)
        names = [field_name(name) for name in identity.attributes]
        chances = np.stack([one.probabilities for one in embedded]).astype(np.float32).T
        data = {
            "id": [read.id for read in reads],
            "source": [self.source] * len(reads),
            "image": [read.item.image for read in reads],
            "jpeg": [one.jpeg for one in embedded],
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.ravel()), identity.embed_dim
            ),
            "attributes": pa.StructArray.from_arrays(list(map(pa.array, chances)), names),
        }
        for name, (column, kind) in self.columns.items():
            values = [convert(read.item.metadata.get(name), column, kind) for read in reads]
            data[column] = pa.array(values, kind)
        nothing = pa.nulls(len(reads))
        arrays = [pa.array(data.get(f.name, nothing), f.type) for f in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def report(self, repeated: list[tuple[str, str]]) -> BuildReport:
        """The numbers; a copy of a broken file is broken as well."""
        duplicates = 0
        for image, found in [*repeated, *self.repeated]:
            if found in self.broken_ids:
                self.broken[image] = self.broken_ids[found]
            else:
                duplicates += 1
        return BuildReport(len(self.written), 0, duplicates, sorted(self.broken.items()))


__all__ = ["BuildReport", "Workers", "column_names", "fill", "hash_of"]
