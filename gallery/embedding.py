"""Crops and queries as vectors: the model behind a gallery, and what identifies it."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from ..attributes_clear import AttributeSchema
from ..modeling_clear import ClearModel
from ..peft_clear import active_adapter_config
from ..processing_clear import ClearProcessor, to_rgb
from ..reporting.adapter import load_adapter
from ..training.checkpoint import load_checkpoint
from .embedded import DECODERS, Embedded, reason
from .identity import Identity
from .ranking import Evidence

JPEG_QUALITY = 92


class Embedder:
    """A model with its adapter and processor, ready to embed.

    Args:
        model: ClearModel with an active adapter. name, adapter: where both can be loaded from.
    """

    def __init__(self, model: ClearModel, processor: ClearProcessor, name: str, adapter: str):
        self.model, self.processor = model.eval(), processor
        self.name, self.adapter = name, adapter

    @classmethod
    def load(cls, model: str, adapter: str | None = None, device: str | None = None) -> "Embedder":
        """Load folder or Hub id; the adapter's default is the model's own `adapters/peta`.

        Raises:
            ValueError: when one of them cannot be loaded, or they do not belong together.
        """
        network, processor = load_checkpoint(model)
        adapter = adapter or f"{model}/adapters/peta"
        load_adapter(network, processor, adapter)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(network.to(device), processor, model, adapter)

    @property
    def schema(self) -> AttributeSchema:
        """The attributes, in the order of the probabilities."""
        return self.processor.schema

    def identity(self) -> Identity:
        """What a gallery remembers of the model."""
        return Identity(
            model=self.name,
            adapter=self.adapter,
            model_fingerprint=self._model_fingerprint(),
            adapter_fingerprint=fingerprint(self._weights(of_adapter=True)),
            embed_dim=active_adapter_config(self.model).embed_dim,
            schema=self.schema.to_dict(),
        )

    def _weights(self, of_adapter: bool) -> dict[str, torch.Tensor]:
        weights = self.model.state_dict()
        active = f".{self.model.visual_projection.active_adapters[0]}."
        projections = {k: t for k, t in weights.items() if ".retrieval_projections." in k}
        if of_adapter:  # its name in this process says nothing
            return {k.replace(active, "."): t for k, t in projections.items() if active in k}
        return {k: t for k, t in weights.items() if k not in projections}

    def _model_fingerprint(self) -> str:
        images = self.processor.image_processor
        prepared = {name: getattr(images, name) for name in ("size", "image_mean", "image_std")}
        return fingerprint(self._weights(of_adapter=False), json.dumps(prepared, default=dict))

    # ---- crops ------------------------------------------------------------------------------

    def embed_files(self, files: Sequence[bytes], keep_jpeg: bool = False) -> list[Embedded]:
        """Embed image files; what cannot be read is said, and does not stop the others."""
        with ThreadPoolExecutor(DECODERS) as pool:
            prepared = list(pool.map(lambda content: self._prepare(content, keep_jpeg), files))
        pixels = [pixel_values for pixel_values, _, error in prepared if not error]
        vectors = iter(zip(*self.embed_pixels(np.stack(pixels)), strict=True) if pixels else ())
        return [
            Embedded(error=error) if error else Embedded(*next(vectors), jpeg)
            for _, jpeg, error in prepared
        ]

    def _prepare(self, content: bytes, keep_jpeg: bool):
        """(pixel values, JPEG or None, error) of one file."""
        try:
            with Image.open(io.BytesIO(content)) as opened:
                is_jpeg, image = opened.format == "JPEG", to_rgb(opened)
            pixels = self.processor(images=image, return_tensors="np")["pixel_values"][0]
        except Exception as error:  # decoders of broken files raise whatever they like
            return None, None, reason(error)
        jpeg = None
        if keep_jpeg:
            jpeg = content if is_jpeg else as_jpeg(image)
        return pixels, jpeg, ""

    @torch.inference_mode()
    def embed_pixels(self, pixel_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shape: (batch, 3, height, width) -> (batch, embed_dim) unit length, (batch, attributes)
        probabilities."""
        pixels = torch.from_numpy(pixel_values).to(self.model.device)
        output = self.model(pixel_values=pixels)
        probabilities = output.logits.float().sigmoid()
        return output.image_embeds.float().cpu().numpy(), probabilities.cpu().numpy()

    def embed_image(self, content: bytes) -> Embedded:
        """Embed the one image of a query.

        Raises:
            ValueError: when it cannot be read.
        """
        embedded = self.embed_files([content])[0]
        if embedded.error:
            raise ValueError(f"`image` must be a readable image, got {embedded.error}.")
        return embedded

    # ---- queries ----------------------------------------------------------------------------

    @torch.inference_mode()
    def embed_queries(self, queries: Sequence[str | Mapping | Sequence[str]]) -> np.ndarray:
        """Shape: queries -> (queries, embed_dim), unit length.

        Raises:
            ValueError: for a query that is empty or names what the schema does not know.
        """
        return self._embed(self.processor(queries=list(queries), return_tensors="pt"))

    @torch.inference_mode()
    def embed_labels(self, labels: np.ndarray) -> np.ndarray:
        """Shape: (queries, attributes) of 1, 0 and -100 -> (queries, embed_dim), unit length."""
        return self._embed(self.processor(labels=labels, return_tensors="pt"))

    def evidence(self, labels: Sequence[int], share: float = 1) -> Evidence | None:
        """What the classifier adds to the cosines of a query; None: nothing, as the adapter says.

        Args:
            labels: (attributes,) of 1, 0 and -100. share: of the description in the whole query.
        """
        config = active_adapter_config(self.model)
        weight = share * config.fusion_weight
        return Evidence.of(self.schema, labels, config.scale, weight) if weight else None

    def _embed(self, inputs) -> np.ndarray:
        inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        return self.model.get_query_features(**inputs).float().cpu().numpy()


def fingerprint(weights: Mapping[str, torch.Tensor], more: str = "") -> str:
    """A number that any change of a weight changes: 16 hexadecimal digits."""
    digest = hashlib.sha256(more.encode())
    for name in sorted(weights):
        tensor = weights[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()[:16]


def as_jpeg(image: Image.Image) -> bytes:
    """An image in little space."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


__all__ = ["Embedder", "fingerprint"]
