"""The one model of the Space: loaded once, shared by all visitors, called one at a time.

Everything of the project comes through the model repository, by `AutoModel` and `AutoProcessor`.
"""

import copy
import importlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import uploads
from huggingface_hub import snapshot_download
from PIL import Image
from torch.nn import functional
from transformers import AutoModel, AutoProcessor
from uploads import UploadError

HUB_ID = "clear-par/clear-tiny"
ENCLOSING = Path(__file__).resolve().parents[1]  # the model repository, when run from a clone
BATCH = 32
BATCH_PIXELS = 50_000_000  # fewer images at once where they are large: 150 MB of them
THUMBNAIL = (160, 320)  # at most, of the crops that are shown
UNKNOWN = -100  # in label rows: not said


@dataclass
class Crops:
    """Crops of one visitor, or the bundled ones, with what the network made of them.

    features: (crops, feature_dim). logits: (crops, attributes). thumbnails: JPEG files.
    pixel_values: (crops, 3, height, width), where they are kept for heat maps.
    """

    names: list[str]
    thumbnails: list[bytes]
    features: torch.Tensor
    logits: torch.Tensor
    pixel_values: torch.Tensor | None = None
    embeds: dict[str, torch.Tensor] = field(default_factory=dict)  # adapter -> (crops, embed_dim)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> int:
        """Bytes that are held, but for a few."""
        tensors = [self.features, self.logits, self.pixel_values, *self.embeds.values()]
        held = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        return held + sum(map(len, self.thumbnails))

    def image(self, index: int) -> Image.Image:
        """A crop as it is shown."""
        return Image.open(io.BytesIO(self.thumbnails[index])).convert("RGB")

    def part(self, places: slice) -> "Crops":
        """Some of the crops alone."""
        pixels = None if self.pixel_values is None else self.pixel_values[places]
        parts = (self.names, self.thumbnails, self.features, self.logits)
        return Crops(*(part[places] for part in parts), pixels)


def model_folder() -> Path:
    """Where the model lies: CLEAR_MODEL, the enclosing repository, or the Hub's copy.

    From a clone the Hub is never asked.
    """
    chosen = os.environ.get("CLEAR_MODEL") or (ENCLOSING if is_model(ENCLOSING) else HUB_ID)
    return Path(chosen) if Path(chosen).is_dir() else Path(snapshot_download(str(chosen)))


def is_model(folder: Path) -> bool:
    """Whether a folder is a repository of CLEAR."""
    config = folder / "config.json"
    return config.is_file() and json.loads(config.read_text()).get("model_type") == "clear"


class NoImageError(UploadError):
    """Nothing among the files can be shown."""


class Engine:
    """Model, processor and retrieval adapters.

    Args:
        folder: of the model repository; None: `model_folder()`.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        self.folder = Path(folder or model_folder())
        trust = {"trust_remote_code": True}
        self.model = AutoModel.from_pretrained(self.folder, **trust).eval()
        self.processor = AutoProcessor.from_pretrained(self.folder, **trust)
        self.schema = self.processor.schema
        self.lock = threading.Lock()
        self.adapters = self._load_adapters()  # name -> configuration
        self.model.requires_grad_(False)  # only heat maps have gradients, those of pixels
        # The file of the model's code that holds its adapters, as the model has imported it.
        package = type(self.model).__module__.rpartition(".")[0]
        self._retrieval = importlib.import_module(".peft_clear", package)

    def _load_adapters(self) -> dict[str, dict]:
        """Load every adapter of the repository that has this model's attributes."""
        adapters = {}
        for file in sorted(self.folder.glob("adapters/*/adapter_config.json")):
            config, name = json.loads(file.read_text()), file.parent.name.replace(".", "_")
            attributes = (config.get("schema") or {}).get("attributes")
            if attributes != list(self.schema.attributes):
                continue
            try:
                self.model.load_adapter(str(file.parent), adapter_name=name)
            except (OSError, RuntimeError, ValueError) as error:
                print(f"Left out the adapter {name!r}: {str(error).splitlines()[0]}")
            else:
                adapters[name] = config
        return adapters

    # ---- images -----------------------------------------------------------------------------

    def read(
        self,
        images: Iterable[tuple[str, Image.Image]],
        keep_pixels: bool = False,
        report: Callable[[int], None] = lambda count: None,
    ) -> Crops:
        """Run the backbone over named images; a batch at a time, whatever their number.

        Args:
            report: is called with the number of crops that are done.

        Raises:
            NoImageError: when there is none.
        """
        names, thumbnails, features, pixels, batch = [], [], [], [], []
        for name, image in images:
            names.append(name)
            thumbnails.append(thumbnail(image))
            batch.append(image)
            if len(batch) == BATCH or sum(map(area, batch)) >= BATCH_PIXELS:
                features.append(self._features(batch, pixels if keep_pixels else None))
                batch = []
                report(len(names))
        if batch:
            features.append(self._features(batch, pixels if keep_pixels else None))
        if not names:
            raise NoImageError("There is no image among the files.")
        stacked = torch.cat(features)
        kept = torch.cat(pixels) if keep_pixels else None
        return Crops(names, thumbnails, stacked, self.model.classifier(stacked), kept)

    def read_files(
        self,
        paths: Iterable[str],
        most: int,
        keep_pixels: bool = False,
        report: Callable[[int], None] = lambda count: None,
    ) -> tuple[Crops, list[str]]:
        """`read` for files of a visitor: (crops, what was left out and why).

        Raises:
            UploadError: for files without any image, and for a zip file that breaks a limit.
        """
        problems: list[str] = []
        try:
            images = uploads.read_crops(paths, problems, most)
            return self.read(images, keep_pixels, report), problems
        except NoImageError as error:
            raise UploadError(" ".join(problems[:3]) or str(error)) from None

    def _features(self, images: list[Image.Image], pixels: list | None) -> torch.Tensor:
        pixel_values = self.processor(images=images, return_tensors="pt")["pixel_values"]
        if pixels is not None:
            pixels.append(pixel_values)
        with self.lock, torch.no_grad():
            return self.model.extract_features(pixel_values)

    # ---- queries ----------------------------------------------------------------------------

    def kinds(self, adapter: str) -> list[str]:
        """The query kinds that an adapter can answer: its own, and each half of it alone."""
        own = self.adapters[adapter]["query_kind"]
        return [own, "soft", "words", "hard"] if own == "soft+hard" else [own]

    def sentence(self, labels: list[int], kind: str) -> str:
        """What the language model reads for a label row; empty for a hard query."""
        if kind == "hard":
            return ""
        return self.schema.words(labels) if kind == "words" else self.schema.describe(labels)

    def embed_query(self, labels: list[int], adapter: str, kind: str) -> torch.Tensor:
        """A label row in the joint space, (embed_dim,); a half that is not asked is zero."""
        processor = copy.copy(self.processor)  # shared: its kind must not change under others
        processor.query_kind = kind
        inputs = processor(labels=[labels], return_tensors="pt")
        model, names = self.model, [adapter]
        with self.lock, torch.no_grad():
            if kind == self.adapters[adapter]["query_kind"]:
                return model.get_query_features(**inputs, adapter_names=names)[0]
            if kind == "hard":
                asked = inputs["query_attributes"]
                signed = torch.where(asked == UNKNOWN, 0, 2 * asked - 1).float()
                half, is_first = model.attribute_projection(signed, names), False
            else:
                text = model.encode_text(inputs["input_ids"], inputs["attention_mask"])
                half, is_first = model.text_projection(text, names), True
        halves = [half, torch.zeros_like(half)]
        return functional.normalize(torch.cat(halves if is_first else halves[::-1], -1), dim=-1)[0]

    def embed_crops(self, crops: Crops, adapter: str) -> torch.Tensor:
        """Crops in the joint space of an adapter, (crops, embed_dim); computed once."""
        if adapter not in crops.embeds:
            with self.lock, torch.no_grad():
                crops.embeds[adapter] = self.model.get_image_features(
                    features=crops.features, adapter_names=[adapter] * len(crops)
                )
        return crops.embeds[adapter]

    def evidence_weight(self, adapter: str) -> float:
        """How much the classifier counts beside the cosine; 0: not at all."""
        return self.adapters[adapter].get("fusion_weight", 0)

    def scores(
        self, labels: list[int], query: torch.Tensor, crops: Crops, adapter: str, weighed: bool
    ) -> torch.Tensor:
        """What ranks the crops for a query, (crops,), see `search_scores` of the model.

        Args:
            labels: the label row that is asked. query: the same in the joint space.
            weighed: whether the classifier counts, where the adapter has a weight for it.
        """
        embeds = self.embed_crops(crops, adapter)
        if not (weighed and self.evidence_weight(adapter)):
            return embeds @ query
        with self.lock, torch.no_grad():  # the active adapter must not change under others
            self.model.set_adapter(adapter)
            rows = np.array([labels])
            (scores,) = self._retrieval.search_scores(
                self.model, query[None], embeds, rows, crops.logits
            )
        return torch.from_numpy(scores)

    # ---- thresholds -------------------------------------------------------------------------

    @property
    def is_calibrated(self) -> bool:
        """Whether the checkpoint brings a threshold for each attribute."""
        return getattr(self.processor, "calibration", None) is not None

    def thresholds(self, threshold: float | None) -> np.ndarray:
        """(attributes,) probabilities above which a thing is said to be there.

        Args:
            threshold: one for all; None: those of the checkpoint, or 0.5.
        """
        if threshold is None:
            threshold = getattr(self.processor, "thresholds", 0.5)
        return np.broadcast_to(threshold, (self.schema.num_attributes,))

    def decode(self, logits: torch.Tensor, threshold: float | None) -> list[dict]:
        """Names of what is seen, see `ClearProcessor.decode`."""
        return self.processor.decode(
            logits, **({} if threshold is None else {"threshold": threshold})
        )


def area(image: Image.Image) -> int:
    """Pixels of an image."""
    return image.width * image.height


def thumbnail(image: Image.Image) -> bytes:
    """A small JPEG of a crop, for the browser."""
    small = image.copy()
    small.thumbnail(THUMBNAIL)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=88)
    return stream.getvalue()
