"""What both stages of training share: the order of the crops, their names, their rates."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from torch.utils.data import Sampler

from .crops import PersonCrops


class EpochOrder(Sampler[int]):
    """A random order of the rows, drawn from (seed, epoch) alone: a resumed epoch repeats it.

    The number of the epoch is set from outside; `set_epoch` would be called by Accelerate with a
    count of its own.
    """

    def __init__(self, num_rows: int, seed: int):
        self.num_rows, self.seed, self.epoch = num_rows, seed, 0

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        return iter(rng.permutation(self.num_rows).tolist())


class Stage(ABC):
    """A stage as the loop of train.py sees it.

    selects_by: the validation metric that picks the best epoch. row_key: entry of a batch with the
    numbers of its crops in `train_image_names`. inputs: `inputs_fingerprint` of what it learns
    from. is_held_out: whether no crop of the validation split is trained on.
    """

    selects_by: str
    row_key: str
    inputs: str
    is_held_out: bool

    @abstractmethod
    def train_image_names(self) -> list[str]:
        """Names of all crops that are trained on."""

    def image_names(self, batch: dict) -> Callable[[], list[str]]:
        """A function that gives the names of the crops of a batch; called only on an error."""

        def names() -> list[str]:
            known = self.train_image_names()
            return [known[row] for row in batch[self.row_key].tolist()]

        return names

    def unreadable_rows(self, batch: dict) -> list[int]:
        """Numbers of the crops of a batch that could not be read and were left out."""
        return []

    def rate_scale(self, name: str) -> float:
        """Share of the learning rate that the parameter of this name takes."""
        return 1.0


def inputs_fingerprint(parts: Iterable[PersonCrops], frozen: str = "") -> str:
    """SHA-256 of what a run learns from and settings do not name: it tells other data by.

    Args: parts: all crops, known by their names and labels. frozen: fingerprint of frozen weights.
    """
    digest = hashlib.sha256(frozen.encode())
    for crops in parts:
        digest.update("\n".join(crops.rows["image_name"][:]).encode())
        digest.update(crops.labels.numpy().tobytes())
    return digest.hexdigest()
