"""What the launcher said, and whether it did what it was asked: seen before any work."""

import os
from collections.abc import Mapping

from accelerate import Accelerator
from accelerate.utils import DistributedType

PRECISION = "ACCELERATE_MIXED_PRECISION"  # set by each `accelerate launch`


def launched_precision() -> str:
    """The number type that `accelerate launch` was configured with; else "no"."""
    return os.environ.get(PRECISION, "no")


def require_launch_as_asked(
    accelerator: Accelerator, accumulated: int, environment: Mapping[str, str] = os.environ
) -> None:
    """Refuse a start that would train another way than was asked, in silence or until it fails.

    Args:
        accumulated: batches of one update, as the settings say.
    Raises: ValueError, with the remedy.
    """
    # accelerate names a meeting point for several processes; only their starter counts them.
    is_asked = PRECISION in environment and "MASTER_PORT" in environment
    if is_asked and "WORLD_SIZE" not in environment and accelerator.num_processes == 1:
        raise ValueError(
            "`num_processes` must be what was asked of the launcher, got 1: accelerate launch "
            "starts several processes on a processor only as one. Use scripts/launch_cpu.sh N; for "
            "one process ask for one, and unset MASTER_PORT."
        )
    if accelerator.distributed_type == DistributedType.FSDP:
        raise ValueError(
            "`distributed_type` must leave whole weights on each process, which their average and "
            "the states of a run need, got FSDP. Use scripts/accelerate/multi_gpu.yaml."
        )
    if accelerator.gradient_accumulation_steps != accumulated:
        raise ValueError(
            f"`gradient_accumulation_steps` must be the same for launcher and run, got "
            f"{accelerator.gradient_accumulation_steps} and {accumulated}. Give accelerate launch "
            "the option as well."
        )
