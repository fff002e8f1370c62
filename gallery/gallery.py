"""A gallery of person crops that can be searched: the library behind `clear-gallery`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .building import BuildReport, Workers, column_names, fill
from .filters import compile_filter
from .index_settings import EXACT, IVF
from .ranking import HeldRows
from .searching import Found, Search, run_searches
from .sources import Source, open_source
from .table import GalleryTable

if TYPE_CHECKING:  # a model takes seconds to import, and most commands need none
    from .embedding import Embedder
    from .tuning import Trial


@dataclass(frozen=True)
class BuildOptions:
    """How images are read and embedded.

    Args:
        split, name_pattern, constants: see `open_source`.
        keep_jpeg: keep the crops themselves in the gallery, as JPEG.
        batch_size: crops that go through the network together.
        ray: address of a Ray cluster whose workers embed ("local": two workers here); None: this
            process, or those of `accelerate launch`.
    """

    split: str | None = None
    name_pattern: str | None = None
    constants: Mapping[str, str] = field(default_factory=dict)
    keep_jpeg: bool = False
    batch_size: int = 64
    ray: str | None = None

    def __post_init__(self):
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}.")

    def open(self, images: str) -> Source:
        """The source of the images."""
        return open_source(images, self.split, self.name_pattern, self.constants)


class Gallery:
    """Crops with their embeddings and attributes, searched by description, image or both.

    Args:
        table: an open table. embedder: the model that made it; None: loaded when it is needed.
    """

    def __init__(self, table: GalleryTable, embedder: "Embedder | None" = None):
        self.table = table
        if embedder is not None:
            table.identity.require_same(embedder.identity())
            self.embedder = embedder

    @cached_property
    def embedder(self) -> "Embedder":
        """The model, loaded from where the gallery remembers it."""
        return load_embedder(table=self.table)

    @cached_property
    def _held(self) -> HeldRows:
        """What searches keep in memory."""
        return HeldRows(self.table)

    # ---- making -----------------------------------------------------------------------------

    @classmethod
    def build(
        cls, uri: str, images: str, embedder: "Embedder", options: BuildOptions | None = None
    ) -> tuple["Gallery", BuildReport]:
        """Make a gallery of all images, or go on with one that a kill has interrupted.

        Args:
            uri: new folder or gallery, or address of object storage ("s3://bucket/people").
            images: see `open_source`.

        Raises:
            ValueError: for a place, images or model that do not fit; no empty gallery is left.
        """
        options = options or BuildOptions()
        source = options.open(images)
        workers = make_workers(embedder, options)
        is_new = workers.is_main and not GalleryTable.exists(uri)
        if is_new:
            GalleryTable.create(uri, embedder.identity(), dict(column_names(source, None).values()))
        workers.gather([uri])  # the others wait until the table is there
        gallery = cls(GalleryTable.open(uri), embedder)
        try:
            return gallery, gallery._fill(source, workers, options)
        except ValueError:
            if is_new and not gallery.table.count():
                gallery.table.drop()
            raise

    @classmethod
    def open(cls, uri: str, embedder: "Embedder | None" = None) -> "Gallery":
        """A gallery that exists.

        Raises:
            ValueError: when there is none, or another model made it.
        """
        return cls(GalleryTable.open(uri), embedder)

    def add(self, images: str, options: BuildOptions | None = None) -> BuildReport:
        """Add the images that are not there yet.

        Raises:
            ValueError: as for `build`.
        """
        options = options or BuildOptions()
        source = options.open(images)
        return self._fill(source, make_workers(self.embedder, options), options)

    def _fill(self, source: Source, workers: Workers, options: BuildOptions) -> BuildReport:
        if not workers.is_main:
            return fill(self.table, source, workers, options.batch_size)
        with self.table.writing():
            if self.table.is_removal_unfinished:
                self.table.purge()
            return fill(self.table, source, workers, options.batch_size)

    # ---- using ------------------------------------------------------------------------------

    def search(
        self,
        query: str | Mapping | Sequence[str] | None = None,
        image: str | bytes | None = None,
        **options,
    ) -> Found:
        """Find crops; the arguments are those of `Search`."""
        return self.search_many([Search(query, image, **options)])[0]

    def search_many(self, searches: Sequence[Search], ray: str | None = None) -> list[Found]:
        """Answer several searches.

        Args:
            ray: address of a Ray cluster that compares the embeddings; None: this process.
        """
        nearest = None
        if ray is not None:
            from .cluster import ray_nearest

            nearest = ray_nearest(self.table, ray)
        return run_searches(self.table, self.embedder, searches, nearest, self._held)

    def remove(
        self,
        ids: Sequence[str] = (),
        filter: str | None = None,  # noqa: A002  # the name of the option everywhere
        source: str | None = None,
    ) -> int:
        """Remove crops from the gallery and from the disk; what is given must all hold.

        Returns: how many crops were removed; with no argument, what an earlier removal that was
            killed has left is cleared away.

        Raises:
            ValueError: for a filter that cannot be understood.
        """
        parts = [] if filter is None else [compile_filter(filter, self.table.filter_columns())]
        if ids:
            parts.append(f"`id` IN ({', '.join(map(quoted, ids))})")
        if source is not None:
            parts.append(f"`source` = {quoted(source)}")
        with self.table.writing():
            if parts:
                return self.table.remove(" AND ".join(parts))
            self.table.purge()
            return 0

    def info(self) -> dict:
        """What the gallery is: crops, model, index, columns, space on the disk."""
        table, identity = self.table, self.table.identity
        return {
            "gallery": table.uri,
            **table.facts(),
            "sources": table.sources(),
            "model": identity.model,
            "model_fingerprint": identity.model_fingerprint,
            "adapter": identity.adapter,
            "adapter_fingerprint": identity.adapter_fingerprint,
            "schema": f"{identity.schema['name']}, {len(identity.attributes)} attributes",
            "embed_dim": identity.embed_dim,
            "metadata": {name: str(kind) for name, kind in table.metadata_columns.items()},
            "index": table.index_facts(),
        }

    def tune(
        self,
        num_queries: int = 50,
        recall: float = 0.95,
        kind: str | None = None,
        say: Callable[[str], object] = print,
        ray: str | None = None,
    ) -> list["Trial"]:
        """Choose how the gallery is searched, with attribute queries; see `tuning.tune`.

        Args:
            ray: address of a Ray cluster whose workers build the index; None: this process.
        """
        from .tuning import make_task, tune

        if num_queries < 1 or not 0 < recall <= 1 or kind not in (None, EXACT, IVF):
            raise ValueError(
                f"`num_queries` must be positive, `recall` in (0, 1] and `kind` {EXACT!r}, {IVF!r} "
                f"or None, got {num_queries}, {recall} and {kind!r}."
            )
        build_index = GalleryTable.build_index
        if ray is not None:
            from .cluster import index_builder

            build_index = index_builder(ray)
        task = make_task(self.table, self.embedder, num_queries)
        with self.table.writing():
            return tune(self.table, task, recall, kind, say, build_index)


def quoted(value: str) -> str:
    """Text as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


def make_workers(embedder: "Embedder", options: BuildOptions) -> Workers:
    """Who embeds: Ray workers, this process, or those of `accelerate launch`."""
    if options.ray is not None:
        from .cluster import ray_workers

        return ray_workers(embedder, options.ray, options.keep_jpeg)
    from .workers import local_workers

    return local_workers(embedder, options.keep_jpeg)


def load_embedder(
    model: str | None = None,
    adapter: str | None = None,
    device: str | None = None,
    table: GalleryTable | None = None,
) -> "Embedder":
    """Load a model with its adapter: the one named, else that of an open table.

    Args:
        model: folder or Hub id. adapter: None: the table's, or `adapters/peta` of the model.

    Raises:
        ValueError: when it cannot be loaded, or is not the one that made the gallery.
    """
    from .embedding import Embedder

    if model is None and table is None:
        raise ValueError("`model` must be a folder or a Hub id, got None and no gallery.")
    if model is None:
        model, adapter = table.identity.model, adapter or table.identity.adapter
    if Path(model).is_dir():  # found again from any working directory
        model = str(Path(model).resolve())
    if adapter is not None and Path(adapter).is_dir():
        adapter = str(Path(adapter).resolve())
    embedder = Embedder.load(model, adapter, device)
    if table is not None:
        table.identity.require_same(embedder.identity())
    return embedder


__all__ = ["BuildOptions", "Gallery", "load_embedder"]
