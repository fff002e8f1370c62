"""Load what a run starts from, with one error that names the option."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..modeling_clear import ClearModel
from ..processing_clear import ClearProcessor


@contextmanager
def naming(option: str, value: str) -> Iterator[None]:
    """Inside, a folder or Hub id that cannot be read is an error that names option and value."""
    try:
        yield
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`{option}` must be a folder or a Hub id that can be read, got {value!r}: {reason}"
        ) from None


def load_checkpoint(checkpoint: str, **changes) -> tuple[ClearModel, ClearProcessor]:
    """Model in single precision, and processor.

    Args: changes: fields of ClearConfig that shall have another value.
    Raises: ValueError when there is no such folder or Hub repository.
    """
    with naming("checkpoint", checkpoint):
        model = ClearModel.from_pretrained(checkpoint, dtype=torch.float32, **changes)
        processor = ClearProcessor.from_pretrained(checkpoint, trust_remote_code=True)
    return model, processor
