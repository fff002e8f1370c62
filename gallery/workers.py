"""Who embeds: this process, or the processes that `accelerate launch` has started."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from accelerate import Accelerator
from accelerate.utils import gather_object

from .building import ReadItem, Workers
from .embedded import Embedded
from .embedding import Embedder


def local_workers(embedder: Embedder, keep_jpeg: bool) -> Workers:
    """This process, or all of an `accelerate launch`, each with its share of every round."""
    # Without `cpu` several processes on a machine without GPUs would not find each other.
    accelerator = Accelerator(cpu=embedder.model.device.type == "cpu")
    embed_files = partial(embedder.embed_files, keep_jpeg=keep_jpeg)

    def embed(
        batches: Iterable[Sequence[ReadItem]],
    ) -> Iterator[tuple[Sequence[ReadItem], list[Embedded]]]:
        for batch in batches:
            yield light(batch), embed_readable(batch, embed_files)

    several = accelerator.num_processes > 1
    if several:
        embedder.model.to(accelerator.device)
    return Workers(
        embed,
        accelerator.process_index,
        accelerator.num_processes,
        gather_object if several else list,
    )


def embed_readable(
    batch: Sequence[ReadItem], embed_files: Callable[[list[bytes]], list[Embedded]]
) -> list[Embedded]:
    """Embed what could be read; keep the reason of what could not."""
    embedded = iter(embed_files([read.content for read in batch if not read.error]))
    return [Embedded(error=read.error) if read.error else next(embedded) for read in batch]


def light(batch: Sequence[ReadItem]) -> list[ReadItem]:
    """Without the files, which have done their work."""
    return [ReadItem(_named(read), read.id, b"", read.error) for read in batch]


def _named(read: ReadItem):
    """The item as it travels between processes: its reader stays behind."""
    return type(read.item)(read.item.image, _nothing, read.item.metadata)


def _nothing() -> bytes:
    return b""


__all__ = ["embed_readable", "light", "local_workers"]
