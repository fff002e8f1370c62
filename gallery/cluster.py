"""A gallery on Ray: workers embed, build the index and compare, by the same table.

The table must be where all workers reach it under the same address: object storage or a shared
disk. `lance-ray` splits index and search by fragments of the table; the answers are the same.
"""

import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import pyarrow as pa

from .building import ReadItem, Workers
from .embedded import Embedded
from .embedding import Embedder
from .identity import Identity
from .index_settings import EXACT, IndexSettings
from .table import RESULT, GalleryTable
from .workers import embed_readable, light

LOCAL = "local"
LOCAL_WORKERS = 2
SAMPLE_RATE = 256  # rows for each list that the centres are computed from
# The last line of a traceback, which is what a worker sends back as the text of its error.
RAISED = re.compile(r"[\w.]*(?:Error|Exception|Exit): .*")
COLOUR = re.compile(r"\x1b\[\d*m")
IN_FLIGHT = 2  # batches that each worker has before it, so that none waits


def connect(address: str):
    """Ray, connected to a cluster, or started with two workers here.

    Raises:
        ValueError: when Ray is not installed, or there is no cluster at that address.
    """
    try:
        import lance_ray
        import ray
    except ImportError as error:
        raise ValueError(
            f"`ray` must be installed to be used ({error}): pip install 'clear-par[gallery-ray]'."
        ) from None
    if ray.is_initialized():
        return ray
    place = {"num_cpus": LOCAL_WORKERS} if address == LOCAL else {"address": address}
    try:
        with _quietly():
            ray.init(**place, include_dashboard=False, logging_level="ERROR")
            lance_ray.init_global_pool(num_workers(ray))
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`ray` must be the address of a cluster, got {address!r}: {reason}"
        ) from None
    return ray


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings about forks: Ray starts its workers anew, and forks none of ours."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lance")
        yield


@contextmanager
def naming_failures(ray, work: str) -> Iterator[None]:
    """Turn what a worker raised, or its loss, into one line.

    Raises:
        ValueError: for every error of Ray, and those of `lance-ray`, which are RuntimeErrors.
    """
    try:
        yield
    except (ray.exceptions.RayError, RuntimeError) as error:
        lines = COLOUR.sub("", str(error)).strip().splitlines() or [type(error).__name__]
        raised = [line.strip() for line in lines if RAISED.fullmatch(line.strip())]
        reason = raised[-1] if raised else lines[0].strip()
        raise ValueError(f"`ray` must have workers that can {work}, got: {reason}") from None


def num_workers(ray) -> int:
    """GPUs of the cluster where it has some, else its processors."""
    resources = ray.cluster_resources()
    return max(int(resources.get("GPU", 0) or resources.get("CPU", 1)), 1)


# ---- embedding ------------------------------------------------------------------------------


class RemoteEmbedder:
    """The model on a worker; refuses to work when it is not the driver's."""

    def __init__(self, identity: Identity):
        self.embedder = Embedder.load(identity.model, identity.adapter)
        identity.require_same(self.embedder.identity())

    def embed_files(self, files: Sequence[bytes], keep_jpeg: bool) -> list[Embedded]:
        """See `Embedder.embed_files`."""
        return self.embedder.embed_files(files, keep_jpeg)


def ray_workers(embedder: Embedder, address: str, keep_jpeg: bool) -> Workers:
    """Workers that load the same model by its name and embed; this process reads and writes."""
    ray = connect(address)
    has_gpus = ray.cluster_resources().get("GPU", 0) > 0
    remote = ray.remote(num_cpus=0 if has_gpus else 1, num_gpus=int(has_gpus))(RemoteEmbedder)
    identity = embedder.identity()
    actors = [remote.remote(identity) for _ in range(num_workers(ray))]

    def finish(batch: Sequence[ReadItem], reference) -> tuple[Sequence[ReadItem], list[Embedded]]:
        with naming_failures(ray, "embed with this model"):
            return batch, embed_readable(batch, lambda files: ray.get(reference))

    def embed(
        batches: Iterable[Sequence[ReadItem]],
    ) -> Iterator[tuple[Sequence[ReadItem], list[Embedded]]]:
        pending = deque()
        for number, batch in enumerate(batches):
            files = [read.content for read in batch if not read.error]
            actor = actors[number % len(actors)]
            pending.append((light(batch), actor.embed_files.remote(files, keep_jpeg)))
            if len(pending) >= IN_FLIGHT * len(actors):
                yield finish(*pending.popleft())
        while pending:
            yield finish(*pending.popleft())
        for actor in actors:  # their processors are needed for the index
            ray.kill(actor)

    return Workers(embed, build_index=index_builder(address))


# ---- index and search -----------------------------------------------------------------------


def index_builder(address: str) -> Callable[[GalleryTable, IndexSettings], None]:
    """What builds an index with the workers of a cluster."""

    def build(table: GalleryTable, settings: IndexSettings) -> None:
        ray = connect(address)
        import lance_ray

        most = table.count() // settings.num_partitions  # it refuses to sample more than there is
        with _quietly(), naming_failures(ray, "read this gallery and build its index"):
            lance_ray.create_index(
                table.dataset_uri,
                "embedding",
                settings.kind,
                name=table.index_name,
                num_workers=num_workers(ray),
                metric="cosine",
                num_partitions=settings.num_partitions,
                sample_rate=max(min(SAMPLE_RATE, most), 2),
            )
        table.store_index_settings(settings)

    return build


def ray_nearest(table: GalleryTable, address: str) -> Callable[..., pa.Table]:
    """As `GalleryTable.nearest`, by the workers of a cluster.

    Raises:
        ValueError: for exact search in a table that has an index, which lance-ray cannot do.
    """
    ray = connect(address)
    import lance_ray

    def nearest(
        vector: np.ndarray,
        top_k: int,
        where: str | None = None,
        settings: IndexSettings | None = None,
        columns: Mapping[str, str] = RESULT,
    ) -> pa.Table:
        used = settings or table.index
        if used.kind == EXACT and table.has_index:
            raise ValueError("`exact` must be searched without `ray` in a gallery with an index.")
        wanted = {"column": "embedding", "q": vector, "k": top_k, "metric": "cosine"}
        if used.kind != EXACT:
            wanted |= {"nprobes": table.probes(used, where), "refine_factor": used.refine}
        with _quietly(), naming_failures(ray, "search this gallery"):
            rows = lance_ray.vector_search(
                table.dataset_uri,
                nearest=wanted,
                columns=dict(columns),
                filter=where,
                num_workers=num_workers(ray),
                scanner_options={"prefilter": True},
            )
        return rows.sort_by([("_distance", "ascending"), ("id", "ascending")])

    return nearest


__all__ = ["connect", "index_builder", "ray_nearest", "ray_workers"]
