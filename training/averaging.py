"""Exponential average of the weights that learn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class WeightAverage:
    """Follows the learned weights of a model; frozen ones are not copied.

    Args:
        decay: share of the old average kept at each step, in [0, 1); 0 follows at once. In the
            first steps it is smaller, so that the average forgets the random start.
        round_to_half: apply the average rounded to half precision, as it will be stored.
    """

    def __init__(self, model: nn.Module, decay: float, round_to_half: bool = False):
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` must be in [0, 1), got {decay}.")
        self.decay, self.round_to_half, self.steps = decay, round_to_half, 0
        self.learned = [p for p in model.parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in self.learned]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights of one more step."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        torch._foreach_lerp_(self.averages, self.learned, 1 - decay)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Learned weights, averages and number of steps, as `load_tensors` takes them back."""
        learned = {f"learned.{i}": value.detach() for i, value in enumerate(self.learned)}
        averages = {f"average.{i}": value for i, value in enumerate(self.averages)}
        return {**learned, **averages, "steps": torch.tensor(self.steps)}

    @torch.no_grad()
    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go back to what `tensors` gave; the model as well."""
        self.steps = int(tensors["steps"])
        self._fill([tensors[f"learned.{i}"] for i in range(len(self.learned))])
        for i, average in enumerate(self.averages):
            average.copy_(tensors[f"average.{i}"])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model holds the average; afterwards its own weights again."""
        own = [p.detach().clone() for p in self.learned]
        averages = [a.half() for a in self.averages] if self.round_to_half else self.averages
        self._fill(averages)
        try:
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self.learned, values, strict=True):
            parameter.copy_(value)
