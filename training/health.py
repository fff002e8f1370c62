"""Stop a run whose numbers are none, and say which crops made them so."""

import math
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

_SHOWN = 10


def require_finite_loss(
    mean: float, loss: torch.Tensor, image_names: Callable[[], list[str]], accelerator: Accelerator
) -> None:
    """Raise, on every process, when the loss of one of them is not a number any more.

    Args:
        mean: of the loss over the processes. loss: of this process.
        image_names: gives the names of the crops of its batch.
    """
    if math.isfinite(mean):
        return
    names = gather_object([] if loss.isfinite() else image_names())
    raise FloatingPointError(
        f"`loss` must be finite, got {mean} for the batch of {len(names)} crops: {listed(names)}. "
        "Look at these crops and their labels; lower `learning_rate`. The last state is whole."
    )


def listed(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"


def require_finite_score(score: float, name: str) -> None:
    """Raise when the validation score that selects the best epoch is not a number."""
    if not math.isfinite(score):
        raise FloatingPointError(
            f"`{name}` must be finite, got {score}. Has `validation_split` known labels?"
        )
