"""Crops for training: decoded once, augmented deterministically.

Augmentation of the authors' public code (pad with black, random crop, flip), with brightness,
contrast and erasing as options for training from scratch.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.transforms import RandAugment
from tqdm import tqdm

from ..attributes_clear import UNKNOWN
from ..processing_clear import ClearProcessor, to_rgb
from .settings import TrainingSettings


@dataclass(frozen=True)
class Augmentation:
    """Random changes of one crop; all draws come from (seed, epoch, index).

    padding: pixels. jitter: largest relative change. erasing: probability. randaugment: number of
    operations of torchvision's RandAugment (arXiv 1909.13719).
    """

    seed: int = 0
    padding: int = 5
    jitter: float = 0.2
    erasing: float = 0.25
    randaugment: int = 0

    @classmethod
    def from_settings(cls, settings: TrainingSettings) -> "Augmentation":
        """The augmentation that a training run asks for."""
        changes = (settings.padding, settings.jitter, settings.erasing, settings.randaugment)
        return cls(settings.seed, *changes)

    def __call__(self, crop: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """Shape: (height, width, 3) uint8 -> the same."""
        rng = np.random.default_rng([self.seed, epoch, index])
        crop = self._shift(crop, rng)
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        if self.randaugment:
            crop = self._randaugment(crop, rng)
        if self.jitter:
            brightness, contrast = 1 + self.jitter * rng.uniform(-1, 1, size=2)
            mean = crop.mean()
            changed = (crop - mean) * contrast + mean * brightness
            crop = changed.clip(0, 255).astype(np.uint8)
        if rng.random() < self.erasing:
            crop = self._erase(crop, rng)
        return crop

    def _randaugment(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        # torchvision draws from torch's generator: it is lent for one crop, then put back.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**63 - 1)))
            return np.asarray(RandAugment(self.randaugment)(Image.fromarray(crop.copy())))

    def _shift(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width, _ = crop.shape
        pad = self.padding
        padded = np.pad(crop, ((pad, pad), (pad, pad), (0, 0)))
        top, left = rng.integers(0, 2 * pad + 1, size=2)
        return padded[top : top + height, left : left + width]

    @staticmethod
    def _erase(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width, _ = crop.shape
        area, ratio = rng.uniform(0.02, 0.2) * height * width, rng.uniform(0.5, 2.0)
        rows = min(int((area * ratio) ** 0.5), height)
        columns = min(int((area / ratio) ** 0.5), width)
        top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
        crop = crop.copy()
        crop[top : top + rows, left : left + columns] = rng.integers(0, 256, size=3)
        return crop


class PersonCrops(Dataset):
    """Rows of a person data set as `pixel_values`, `labels`, `index`, `row` and `is_readable`.

    `row` is the index counted over several data sets, from `first_row`, which may be set.

    Args:
        rows: columns of `person_features`.
        processor: gives size and statistics; without augmentation a crop is exactly its output.
        augmentation: None: the plain crop.
        cache: keep the resized crops in memory, decoded at once by threads.
        on_bad_image: "raise" names a crop that cannot be read; "skip" gives a black one without
            known labels, which no loss and no metric counts.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        processor: ClearProcessor,
        augmentation: Augmentation | None = None,
        cache: bool = True,
        on_bad_image: str = "raise",
    ):
        size = processor.image_processor.size
        self.size = (size["width"], size["height"])
        self.mean = np.asarray(processor.image_processor.image_mean, dtype=np.float32)
        self.std = np.asarray(processor.image_processor.image_std, dtype=np.float32)
        self.rows, self.augmentation, self.epoch = rows, augmentation, 0
        self.on_bad_image, self.first_row = on_bad_image, 0
        self.labels = torch.tensor(labels_of(rows), dtype=torch.long)
        self.is_readable = torch.ones(len(rows), dtype=torch.bool)
        self.cache = self._decode_all() if cache else None

    def hold(self) -> None:
        """Decode all crops into memory, where that is not done yet."""
        if self.cache is None:
            self.cache = self._decode_all()

    def release(self) -> None:
        """Forget the decoded crops; they are read from the data set again."""
        self.cache = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        crop = self._decode(index) if self.cache is None else self.cache[index].numpy()
        if self.augmentation is not None:
            crop = self.augmentation(crop, self.epoch, index)
        pixels = (crop.astype(np.float32) / 255 - self.mean) / self.std
        pixel_values = torch.from_numpy(pixels).permute(2, 0, 1)  # (3, height, width)
        is_readable = self.is_readable[index]
        return {
            "pixel_values": pixel_values,
            "labels": torch.where(is_readable, self.labels[index], UNKNOWN),
            "index": index,
            "row": self.first_row + index,
            "is_readable": is_readable,
        }

    def _decode(self, index: int) -> np.ndarray:
        try:
            image = to_rgb(self.rows[index]["image"])
        except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each of them
            if self.on_bad_image == "skip":
                self.is_readable[index] = False
                return np.zeros((*self.size[::-1], 3), dtype=np.uint8)
            name = self.rows.select_columns("image_name")[index]["image_name"]
            raise ValueError(f"`rows` must hold readable images, got {name!r}: {error}") from None
        return np.asarray(image.resize(self.size, Image.Resampling.BILINEAR))

    def _decode_all(self) -> torch.Tensor:
        width, height = self.size
        cache = torch.empty(len(self), height, width, 3, dtype=torch.uint8).share_memory_()

        def fill(index: int) -> None:
            cache[index] = torch.from_numpy(self._decode(index).copy())

        with ThreadPoolExecutor(2) as pool:
            list(tqdm(pool.map(fill, range(len(self))), "decode crops", len(self), leave=False))
        return cache


def labels_of(rows: datasets.Dataset) -> np.ndarray:
    """Label matrix (images, attributes) of 1, 0 and -100, without touching an image."""
    column = rows.select_columns("labels").with_format("arrow")[:]["labels"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(rows), -1)


def positive_ratios(labels: np.ndarray) -> list[float]:
    """Share of positives among the known labels of each attribute; 0.5 where none is known."""
    known = labels >= 0
    counts = known.sum(axis=0)
    positives = (labels == 1).sum(axis=0)
    return np.where(counts > 0, positives / np.maximum(counts, 1), 0.5).tolist()
