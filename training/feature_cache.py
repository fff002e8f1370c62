"""The frozen backbone's features: computed once for each view of each crop, and kept.

A view is a crop as one epoch of augmentation would show it; view 0 is the plain crop. On disk the
features of each view lie under all that they depend on: weights and sizes of the model, images,
preprocessing, augmentation and view, code, libraries and kind of arithmetic.
"""

import hashlib
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path

import datasets
import numpy
import PIL
import timm
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub.constants import HF_HOME

from ..modeling_clear import ClearModel
from ..peft_clear import weights_fingerprint
from ..processing_clear import ClearProcessor
from .crops import Augmentation, PersonCrops
from .evaluation import crop_loader, predict
from .settings import TrainingSettings
from .tensor_store import TensorStore

ROOT = Path(__file__).resolve().parents[1]
CODE = (  # all that stands between the bytes of an image and its feature
    *("backbones_clear.py", "configuration_clear.py", "modeling_clear.py", "processing_clear.py"),
    *("training/crops.py", "training/evaluation.py", "training/feature_cache.py"),
)
SHAPES = ("image_", "local_", "global_", "channel_", "fusion_", "use_")  # fields of ClearConfig
PREPROCESSING = ("size", "image_mean", "image_std")


def cache_folder(setting: str) -> Path | None:
    """The folder that `cache_features` means; None: nothing is kept between runs."""
    if setting in ("memory", "false"):
        return None
    return Path(HF_HOME) / "clear_features" if setting == "true" else Path(setting)


@cache
def code_version() -> str:
    """SHA-256 of the code that makes features."""
    digest = hashlib.sha256()
    for name in CODE:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def images_fingerprint(rows: datasets.Dataset) -> str:
    """SHA-256 of the files of all images, in their order."""
    digest = hashlib.sha256()
    files = rows.select_columns("image").cast_column("image", datasets.Image(decode=False))
    for batch in files.iter(500):
        for image in batch["image"]:
            content = image["bytes"] or Path(image["path"]).read_bytes()
            digest.update(f"{len(content)} ".encode())
            digest.update(content)
    return digest.hexdigest()


class FrozenFeatures:
    """Computes or finds the features of crops.

    Args:
        model: the base; its backbone does not change while this exists.
        settings: of the run; `cache_features` says where features are kept.
    """

    def __init__(
        self,
        model: ClearModel,
        processor: ClearProcessor,
        settings: TrainingSettings,
        accelerator: Accelerator,
    ):
        self.model, self.processor = model, processor
        self.settings, self.accelerator = settings, accelerator
        folder = cache_folder(settings.cache_features)
        self.store = folder and TensorStore(folder, "features")

    def views(
        self, crops: PersonCrops, augmentation: Augmentation | None = None, count: int = 1
    ) -> torch.Tensor:
        """Features of the first views of all crops, on the CPU.

        Returns: (count, images, feature_dim).
        """
        images = images_fingerprint(crops.rows) if self.store else None
        features = [self._view(crops, augmentation, view, images) for view in range(count)]
        crops.release()
        return torch.stack(features)

    def _view(
        self, crops: PersonCrops, augmentation: Augmentation | None, view: int, images: str | None
    ) -> torch.Tensor:
        crops.augmentation, crops.epoch = (augmentation if view else None), view
        key = self.key(crops.augmentation, view, images)
        found = self._find(key)
        if found is not None:
            return found
        if self.settings.cache_images:
            crops.hold()
        loader = crop_loader(crops, 2 * self.settings.batch_size, self.settings.num_workers)
        features = predict(self.model, self.accelerator.prepare(loader), self.accelerator)[1]
        if self.store and self.accelerator.is_main_process:
            self.store.save(key, features)
        return features

    def _find(self, key: dict) -> torch.Tensor | None:
        """Kept features; all processes go the way of the first, for they compute together."""
        if self.store is None:
            return None
        found = self.store.load(key)
        is_there = broadcast_object_list([found is not None])[0]
        if is_there and found is None:
            raise OSError(
                "`cache_features` must be a folder that all processes read, got "
                f"{self.settings.cache_features!r}."
            )
        return found[0] if is_there else None

    def key(self, augmentation: Augmentation | None, view: int, images: str | None) -> dict:
        """All that the features of a view depend on, as plain JSON.

        Args: images: `images_fingerprint`.
        """
        return {
            "images": images,
            "augmentation": None if augmentation is None else asdict(augmentation),
            "view": view,
            **self._common_key,
        }

    @cached_property
    def _common_key(self) -> dict:
        if self.store is None:
            return {}
        config, image_processor = self.model.config.to_dict(), self.processor.image_processor
        libraries = (torch, timm, numpy, PIL)
        return {
            "weights": weights_fingerprint(self.model.backbone),
            "shapes": {name: config[name] for name in config if name.startswith(SHAPES)},
            "preprocessing": {n: _plain(getattr(image_processor, n)) for n in PREPROCESSING},
            "code": code_version(),
            "libraries": {library.__name__: library.__version__ for library in libraries},
            "arithmetic": [self.accelerator.device.type, self.settings.mixed_precision],
        }


def _plain(value):
    """A setting of the image processor as JSON has it."""
    return dict(value.items()) if hasattr(value, "items") else list(value)
