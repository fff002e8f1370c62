"""Optimizers, and the learning rate as a function of the step and the history of a run.

A rate that is a pure function needs no state of its own: a resumed run computes the same one.
"""

import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import nn

from .settings import TrainingSettings

PLATEAU_FACTOR, PLATEAU_PATIENCE, PLATEAU_THRESHOLD = 0.1, 4, 1e-4  # authors' public code


def build_optimizer(
    model: nn.Module, settings: TrainingSettings, rate_scale: Callable[[str], float]
) -> torch.optim.Optimizer:
    """The optimizer that the settings ask for, over the parameters that learn.

    Args:
        rate_scale: share of the learning rate that the parameter of this name takes.
    """
    groups = parameter_groups(model, settings.weight_decay, rate_scale)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, settings.learning_rate, momentum=0.9, nesterov=True)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return kind(groups, settings.learning_rate)


def parameter_groups(
    model: nn.Module, weight_decay: float, rate_scale: Callable[[str], float] = lambda name: 1.0
) -> list[dict]:
    """Matrices decay; biases, norms and single tokens do not. One group for each rate scale."""
    members: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_vector = sum(size > 1 for size in parameter.shape) < 2
            members.setdefault((is_vector, rate_scale(name)), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": 0.0 if is_vector else weight_decay,
            "rate_scale": scale,
        }
        for (is_vector, scale), parameters in sorted(members.items(), key=lambda item: item[0])
    ]


def layer_rate_scale(
    layer_decay: float, local_depths: Sequence[int], global_depth: int
) -> Callable[[str], float]:
    """Rates that fall towards the input of both branches; fusion and classifier take the whole.

    Source: layer-wise decay as in BEiT (arXiv 2106.08254): `layer_decay` to the power of the
    number of layers above. Embeddings are layer 0, the blocks of a branch 1 to its depth.
    """

    def scale(name: str) -> float:
        if match := re.search(r"global_branch\.(?:blocks\.(\d+)\.|(?!norm))", name):
            layer = 0 if match[1] is None else int(match[1]) + 1
            return layer_decay ** (global_depth + 1 - layer)
        if "local_branch.patch_embed." in name:
            return layer_decay ** (sum(local_depths) + 1)
        if match := re.search(r"local_branch\.layers\.(\d+)\.(?:blocks\.(\d+)\.)?", name):
            # What stands before the blocks of a stage belongs to the first of them.
            layer = sum(local_depths[: int(match[1])]) + int(match[2] or 0) + 1
            return layer_decay ** (sum(local_depths) + 1 - layer)
        return 1.0

    return scale


def rate_schedule(total_steps: int, warmup_share: float) -> Callable[[int], float]:
    """Share of the peak rate at a step: linear rise, then half a cosine down to 1 %."""
    warmup_steps = max(1, round(total_steps * warmup_share))

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))

    return share


def plateau_share(losses: Sequence[float]) -> float:
    """Share of the peak rate after these validation losses, one for each epoch.

    The rate falls to a tenth when the loss has not become smaller, by a ten-thousandth of itself,
    for more than four epochs. Equal to torch's ReduceLROnPlateau as the authors use it.
    """
    best, bad_epochs, share = math.inf, 0, 1.0
    for loss in losses:
        is_better = loss < best * (1 - PLATEAU_THRESHOLD)
        best, bad_epochs = (loss, 0) if is_better else (best, bad_epochs + 1)
        if bad_epochs > PLATEAU_PATIENCE:
            share, bad_epochs = share * PLATEAU_FACTOR, 0
    return share


def rate_share(
    settings: TrainingSettings, step: int, total_steps: int, history: Sequence[dict]
) -> float:
    """Share of the peak rate at a step, 0-based, by the schedule of the settings.

    Args:
        history: metrics of the epochs that are finished, each with "validation_loss".
    """
    if settings.schedule == "cosine":
        return rate_schedule(total_steps, settings.warmup_share)(step)
    if settings.schedule == "plateau":
        return plateau_share([epoch["validation_loss"] for epoch in history])
    return 1.0


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each group to its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_scale"]
