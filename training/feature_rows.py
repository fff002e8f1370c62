"""Training rows of the retrieval stage: kept features, or the crops that they would come from."""

import numpy as np
import torch
from torch.utils.data import Dataset

from .crops import Augmentation, PersonCrops


def views_of_epoch(num_rows: int, num_views: int, seed: int, epoch: int) -> np.ndarray:
    """The view that each row shows in an epoch, drawn from (seed, epoch) alone.

    Args: num_views: views to draw from; 0: each epoch has a view of its own.
    """
    if not num_views:
        return np.full(num_rows, epoch)
    return np.random.default_rng([seed, epoch]).integers(num_views, size=num_rows)


class ViewedRows(Dataset):
    """Rows of which each epoch shows one view.

    Args: categories: (images,). num_views, seed: as for `views_of_epoch`.
    """

    def __init__(self, categories: np.ndarray, num_views: int, seed: int):
        self.categories = torch.from_numpy(categories)
        self.num_views, self.seed, self.epoch = num_views, seed, 0
        self._drawn = (-1, np.array([]))

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def views(self) -> np.ndarray:
        """(images,) the view of each row in this epoch."""
        if self._drawn[0] != self.epoch:
            views = views_of_epoch(len(self), self.num_views, self.seed, self.epoch)
            self._drawn = (self.epoch, views)
        return self._drawn[1]


class FeatureRows(ViewedRows):
    """Frozen features of crops; a batch is taken out in one piece.

    Args: features: (views, images, feature_dim). categories: (images,).
    """

    def __init__(self, features: torch.Tensor, categories: np.ndarray, seed: int):
        super().__init__(categories, len(features), seed)
        self.features = features

    def __getitem__(self, index: int) -> dict:
        return {
            "features": self.features[self.views[index], index],
            "categories": self.categories[index],
            "index": index,
        }

    def __getitems__(self, indices: list[int]) -> dict:
        rows = torch.as_tensor(indices)
        return {
            "features": self.features[torch.from_numpy(self.views[indices]), rows],
            "categories": self.categories[rows],
            "index": rows,
        }


class CropRows(ViewedRows):
    """The crops themselves: the backbone runs in every step.

    Args: augmentation: of all views but view 0. num_views: 0: a new one in each epoch.
    """

    def __init__(
        self,
        crops: PersonCrops,
        categories: np.ndarray,
        augmentation: Augmentation,
        num_views: int,
        seed: int,
    ):
        super().__init__(categories, num_views, seed)
        self.crops, self.augmentation = crops, augmentation

    def __getitem__(self, index: int) -> dict:
        view = int(self.views[index])
        self.crops.augmentation, self.crops.epoch = (self.augmentation if view else None), view
        pixel_values = self.crops[index]["pixel_values"]
        return {
            "pixel_values": pixel_values,
            "categories": self.categories[index],
            "index": index,
        }


def as_it_is(batch: dict) -> dict:
    """Collate what `FeatureRows` has put together already."""
    return batch
