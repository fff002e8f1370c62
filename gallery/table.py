"""The table of a gallery in LanceDB: rows, versions, index, removal.

Every write is one commit: a process that is killed, or a full disk, leaves the version before it.
Readers see the latest version at each search and never wait for a writer.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from ..attributes_clear import AttributeSchema
from .filters import Column, column
from .identity import Identity
from .index_settings import EXACT, IndexSettings
from .metadata import CAMERA, TIME, TYPED
from .places import disk_bytes, is_local, naming_full_disks

try:
    import lancedb
except ModuleNotFoundError as error:
    remedy = "The gallery needs LanceDB: pip install 'clear-par[gallery]'."
    raise ModuleNotFoundError(remedy) from error

NAME = "crops"
INDEX_NAME = "embedding_idx"  # the engine's own default
IDENTITY_KEY, INDEX_KEY, REMOVAL_KEY = b"clear_gallery", "clear_index", "clear_removal"
LOCK = ".writer.lock"
KEPT_VERSIONS = timedelta(hours=1)  # readers of the version before stay undisturbed so long
# A filter leaves fewer crops in each list, so that more lists are needed; they cost little then.
FILTERED_PROBES = 2  # times the lists of a search without a filter
RARE = 0.01  # share of the crops that pass, below which a filtered search looks into all lists
BATCH = 8_192  # rows that are in memory together while a table is rewritten
RESULT = {name: f"`{name}`" for name in ("id", "source", "image", CAMERA, TIME)}
KINDS = (
    (pa.types.is_string, "text"),
    (pa.types.is_boolean, "flag"),
    (pa.types.is_timestamp, "time"),
    (pa.types.is_integer, "whole"),
    (pa.types.is_floating, "number"),
)


def field_name(attribute: str) -> str:
    """The column of an attribute's probability; the engine forbids dots in names."""
    return attribute.replace(".", "_").replace("`", "_")


def table_schema(identity: Identity, columns: Mapping[str, pa.DataType]) -> pa.Schema:
    """Columns of a gallery; `columns` are those of the free metadata."""
    probabilities = [pa.field(field_name(name), pa.float32()) for name in identity.attributes]
    fixed = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string()),
        pa.field("image", pa.string()),
        pa.field("jpeg", pa.large_binary()),
        pa.field("embedding", pa.list_(pa.float32(), identity.embed_dim)),
        pa.field("attributes", pa.struct(probabilities)),
        *(pa.field(name, kind) for name, kind in TYPED.items()),
    ]
    free = [pa.field(name, kind) for name, kind in columns.items() if name not in TYPED]
    return pa.schema([*fixed, *free], metadata={IDENTITY_KEY: identity.to_json()})


class GalleryTable:
    """An open gallery; `create` or `open` makes it.

    Args:
        uri: folder, or address of object storage ("s3://...").
    """

    def __init__(self, uri: str, database: lancedb.DBConnection, table):
        self.uri, self._database, self._table = uri, database, table

    @classmethod
    def create(
        cls, uri: str, identity: Identity, columns: Mapping[str, pa.DataType]
    ) -> "GalleryTable":
        """A new, empty gallery.

        Raises:
            ValueError: when the place holds something else.
        """
        if is_local(uri) and Path(uri).exists() and not _is_free(Path(uri)):
            raise ValueError(f"`gallery` must be a new folder or a gallery, got {uri!r}.")
        database = _connect(uri)
        schema = table_schema(identity, columns)
        return cls(uri, database, database.create_table(NAME, schema=schema))

    @classmethod
    def open(cls, uri: str) -> "GalleryTable":
        """A gallery that exists.

        Raises:
            ValueError: when there is none at that place.
        """
        if not cls.exists(uri):
            raise ValueError(f"`gallery` must be a gallery, got {uri!r}; make one with `build`.")
        database = _connect(uri)
        try:
            table = cls(uri, database, database.open_table(NAME))
        except (RuntimeError, ValueError) as error:  # damaged: the engine's own words
            reason = " ".join(str(error).split())
            raise ValueError(f"`gallery` must be whole, got {uri!r} damaged: {reason}") from None
        if IDENTITY_KEY not in (table.schema.metadata or {}):
            raise ValueError(f"`gallery` must be a gallery, got another table at {uri!r}.")
        return table

    @classmethod
    def exists(cls, uri: str) -> bool:
        """Whether there is a table at that place."""
        if is_local(uri):
            return (Path(uri) / f"{NAME}.lance").is_dir()
        return NAME in _connect(uri).list_tables().tables

    # ---- what it is -------------------------------------------------------------------------

    @property
    def schema(self) -> pa.Schema:
        """All columns, and what is stored with them."""
        return self._table.schema

    @cached_property
    def identity(self) -> Identity:
        """The model that made it."""
        return Identity.from_json(self.schema.metadata[IDENTITY_KEY].decode())

    @property
    def metadata_columns(self) -> dict[str, pa.DataType]:
        """Camera, time and the free metadata."""
        fixed = {f.name for f in table_schema(self.identity, {})} - set(TYPED)
        return {f.name: f.type for f in self.schema if f.name not in fixed}

    def filter_columns(self) -> dict[str, Column]:
        """What filters may name: columns, attributes, and attributes by their readable names."""
        schema = AttributeSchema.from_dict(self.identity.schema)
        attributes = {
            name: column(f"attributes.{field_name(name)}", "probability")
            for name in schema.attributes
        }
        readable = {flag.name: flag.attribute for flag in schema.flags}
        for group in schema.groups:
            readable |= {f"{group.name} {v}": attribute for v, attribute in group.options.items()}
        named = {name: attributes[attribute] for name, attribute in readable.items()}
        full = {f"attributes.{name}": known for name, known in attributes.items()}
        plain = {
            f.name: column(f.name, kind)
            for f in self.schema
            for check, kind in KINDS
            if check(f.type)
        }
        return {**full, **named, **attributes, **plain}

    def count(self, where: str | None = None) -> int:
        """Rows, or rows that meet a condition."""
        return self._table.count_rows(where)

    @property
    def version(self) -> int:
        """A number that each commit raises."""
        return self._table.version

    def ids(self) -> set[str]:
        """The ids of all rows."""
        return {value for batch in self.batches(["id"]) for value in batch["id"].to_pylist()}

    def batches(
        self,
        columns: list[str] | Mapping[str, str],
        where: str | None = None,
        limit: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Rows in the order of the table, some at a time; `columns` as for `read`."""
        query = self._table.search().select(columns)
        query = query.where(where) if where else query
        query = query.limit(limit) if limit else query
        yield from query.to_batches(batch_size=BATCH)

    def read(self, columns: list[str] | Mapping[str, str], where: str | None = None) -> pa.Table:
        """All rows that meet a condition, in memory.

        Args:
            columns: names, or name in the result -> SQL.
        """

        def read() -> pa.Table:
            query = self._table.search().select(columns)
            return (query.where(where) if where else query).to_arrow()

        return self.retried(read)

    # ---- writing ----------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, no other process writes; a killed one holds nothing.

        Raises:
            ValueError: when another process writes. OSError: when the disk is full.
        """
        lock = FileLock(Path(self.uri) / LOCK) if is_local(self.uri) else None
        try:
            if lock:
                lock.acquire(timeout=0)
            with naming_full_disks(self.uri):
                yield
        except Timeout:
            raise ValueError(
                f"`gallery` must have one writer at a time, got {self.uri!r}, into which another "
                "process writes now. Wait for it."
            ) from None
        finally:
            if lock:
                lock.release()

    def append(self, rows: pa.Table) -> None:
        """Add rows in one commit."""
        self._table.add(rows)

    def add_columns(self, columns: Mapping[str, pa.DataType]) -> None:
        """Metadata columns that earlier rows do not have."""
        new = [pa.field(n, kind) for n, kind in columns.items() if n not in self.schema.names]
        if new:
            self._table.add_columns(new)

    def settle(self, build_index: Callable | None = None) -> None:
        """After writing: one file out of many small ones, and an index that knows all rows.

        Args:
            build_index: another way to build one than `GalleryTable.build_index`.
        """
        count, there = self.count(), self.index
        wanted = IndexSettings.default(count)
        is_chosen = 2 * there.measured.get("rows", 0) >= count  # by `info --tune`, for such a size
        if there.kind == EXACT and wanted.kind != EXACT and not is_chosen:
            (build_index or GalleryTable.build_index)(self, wanted)
        self._table.optimize(cleanup_older_than=KEPT_VERSIONS)

    # ---- index ------------------------------------------------------------------------------

    @property
    def index(self) -> IndexSettings:
        """How it is searched."""
        return IndexSettings.from_json(self._note(INDEX_KEY))

    @property
    def index_name(self) -> str:
        """What the engine calls the index."""
        return INDEX_NAME

    @property
    def dataset_uri(self) -> str:
        """The table itself, for other programs that read Lance."""
        return f"{self.uri.rstrip('/')}/{NAME}.lance"

    @property
    def has_index(self) -> bool:
        """Whether the index of the settings is there; a kill may have come before it was."""
        return any("embedding" in index.columns for index in self._table.list_indices())

    def store_index_settings(self, settings: IndexSettings) -> None:
        """Keep the parameters with the table."""
        self._take_note(INDEX_KEY, settings.to_json())

    def _note(self, key: str) -> str | None:
        """What is stored with the embeddings; notes change with commits of their own."""
        stored = self.schema.field("embedding").metadata or {}
        return stored[key.encode()].decode() if key.encode() in stored else None

    def _take_note(self, key: str, value: str | None) -> None:
        self._table.update_field_metadata({"path": "embedding", "metadata": {key: value}})

    def build_index(self, settings: IndexSettings) -> None:
        """Make the index anew, then store its parameters; until then searching stays as it is."""
        if settings.kind != EXACT:
            config = lancedb.index.IvfSq(
                distance_type="cosine", num_partitions=settings.num_partitions
            )
            self._table.create_index("embedding", config=config, name=self.index_name, replace=True)
        self.store_index_settings(settings)

    # ---- searching --------------------------------------------------------------------------

    def nearest(
        self,
        vector: np.ndarray,
        top_k: int,
        where: str | None = None,
        settings: IndexSettings | None = None,
        columns: Mapping[str, str] = RESULT,
    ) -> pa.Table:
        """The rows nearest to a vector by cosine, with their `_distance` (1 - cosine), best first.

        Args:
            vector: (embed_dim,). where: SQL of `compile_filter`. settings: others than the stored.
            columns: name in the result -> SQL.
        """
        settings = settings or self.index
        query = self._table.search(vector, vector_column_name="embedding").distance_type("cosine")
        query = query.limit(top_k).select({**columns, "_distance": "_distance"})
        if where:
            query = query.where(where, prefilter=True)
        if settings.kind == EXACT:
            query = query.bypass_vector_index()
        else:
            query = query.nprobes(self.probes(settings, where)).refine_factor(settings.refine)
        return self.retried(query.to_arrow).sort_by(
            [("_distance", "ascending"), ("id", "ascending")]
        )

    def probes(self, settings: IndexSettings, where: str | None = None) -> int:
        """Lists of the index that a search looks into."""
        if where is None:
            return settings.num_probes
        if self.count(where) < RARE * self.count():
            return settings.num_partitions
        return min(FILTERED_PROBES * settings.num_probes, settings.num_partitions)

    def retried(self, read: Callable[[], pa.Table]) -> pa.Table:
        """A reading, once more when a removal has taken the files of the version that was read."""
        try:
            return read()
        except (OSError, RuntimeError, ValueError):
            self._table.checkout_latest()
            return read()

    # ---- removal ----------------------------------------------------------------------------

    def remove(self, where: str) -> int:
        """Remove rows from the table and from the disk; returns how many."""
        found = self.count(where)
        if found:
            self._take_note(REMOVAL_KEY, "unfinished")
            self._table.delete(where)
        if found or self.is_removal_unfinished:
            self.purge()
        return found

    @property
    def is_removal_unfinished(self) -> bool:
        """Whether a killed removal has left data on the disk that searches do not show."""
        return self._note(REMOVAL_KEY) is not None

    def purge(self) -> None:
        """Write the table anew without what was removed, then drop every earlier version.

        The engine's own compaction leaves removed rows on the disk where they are few, and an
        index keeps its copy of them; so both are made again.
        """
        settings, schema = self.index, self.schema
        batches = pa.RecordBatchReader.from_batches(schema, self.batches(schema.names))
        self._table = self._database.create_table(NAME, data=batches, mode="overwrite")
        if settings.kind != EXACT and self.count():
            self.build_index(settings)
        self._drop_earlier_versions()
        if self.is_removal_unfinished:
            self._take_note(REMOVAL_KEY, None)
            self._drop_earlier_versions()

    def drop(self) -> None:
        """Remove the gallery itself; what else lies in its folder stays."""
        self._database.drop_table(NAME)
        if is_local(self.uri):
            (Path(self.uri) / LOCK).unlink(missing_ok=True)
            if not any(Path(self.uri).iterdir()):
                Path(self.uri).rmdir()

    def _drop_earlier_versions(self) -> None:
        with warnings.catch_warnings():
            # Says that readers of earlier versions fail: they are removed on purpose.
            warnings.simplefilter("ignore", UserWarning)
            self._table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)

    # ---- facts ------------------------------------------------------------------------------

    def facts(self) -> dict:
        """Rows, versions, what removal has left behind, and space on the disk."""
        versions = self._table.list_versions()
        removed = int(versions[-1]["metadata"].get("total_deletion_file_rows", 0))
        return {
            "crops": self.count(),
            "versions": len(versions),
            "removed_rows_on_disk": removed,
            "removal_unfinished": self.is_removal_unfinished,
            "disk_bytes": disk_bytes(self.uri),
        }

    def sources(self) -> dict[str, int]:
        """Source -> its crops."""
        return _count_sources(self.batches(["source"]))

    def index_facts(self) -> dict:
        """How it is searched, and whether the index has every row."""
        facts = asdict(self.index)
        for index in self._table.list_indices():
            stats = self._table.index_stats(index.name)
            facts["indexed_rows"] = stats.num_indexed_rows
            facts["rows_outside_index"] = stats.num_unindexed_rows
        return facts


def _count_sources(batches: Iterator[pa.RecordBatch]) -> dict[str, int]:
    counts = Counter()
    for batch in batches:
        for pair in batch["source"].value_counts().to_pylist():
            counts[pair["values"]] += pair["counts"]
    return dict(counts)


def _connect(uri: str) -> lancedb.DBConnection:
    return lancedb.connect(uri, read_consistency_interval=timedelta(0))


def _is_free(place: Path) -> bool:
    """Whether nothing but the leavings of a killed `build` is there."""
    return place.is_dir() and {path.name for path in place.iterdir()} <= {LOCK}


__all__ = ["GalleryTable", "field_name", "table_schema"]
