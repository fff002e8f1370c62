"""CLEAR behind a Hugging Face Inference Endpoint: recognise crops, or rank them by a query.

The endpoint imports this file from the repository that it serves. Requests, as JSON:

    {"inputs": IMAGE or [IMAGE, ...], "parameters": {"threshold": 0.5}}
    {"inputs": {"query": "woman with a backpack", "images": [IMAGE, ...]},
     "parameters": {"top_k": 5, "adapter": "peta", "evidence": true}}

A ranking's score is the cosine of the joint space where the adapter has no `fusion_weight`, and
where "evidence" is false; else the cosine is joined by the classifier's evidence, see
`search_scores` of the model's code.

IMAGE is a picture file in base64, with or without "data:image/png;base64," before it; in Python
also its bytes or a PIL image. Addresses are refused: a server that fetches what it is told to can
be made to read its own network.
"""

import base64
import binascii
import copy
import io
import json
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

MOST_IMAGES, MOST_BYTES, MOST_PIXELS = 512, 20_000_000, 50_000_000
PARAMETERS = {"threshold", "top_k", "adapter", "batch_size", "evidence"}
ADAPTER_SETTINGS = "adapter_config.json"


class EndpointHandler:
    """Answers the requests of one endpoint.

    Args:
        path: folder of a model, whose retrieval adapters lie in `adapters/NAME`, or of one
            adapter, whose base is then loaded from the Hub.
    """

    def __init__(self, path: str = "."):
        folder = Path(path)
        is_adapter = not (folder / "config.json").is_file()
        base = base_of(folder) if is_adapter else str(folder)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.processor = AutoProcessor.from_pretrained(base, trust_remote_code=True)
        model = AutoModel.from_pretrained(base, trust_remote_code=True, dtype=torch.float32)
        self.model = model.eval().to(self.device)
        self.lock = Lock()  # requests may come side by side, but one adapter is active
        adapters = [folder] if is_adapter else sorted(folder.glob(f"adapters/*/{ADAPTER_SETTINGS}"))
        self.processors = {}
        for place in adapters:
            self._load_adapter(place if is_adapter else place.parent)

    def _load_adapter(self, folder: Path) -> None:
        name = folder.resolve().name.replace(".", "_")  # PEFT takes no dot
        self.model.load_adapter(str(folder), adapter_name=name)
        config = self.model.peft_config[name]
        processor = copy.copy(self.processor)
        processor.query_kind = config.query_kind
        if config.schema is not None:
            processor.schema = type(self.processor.schema).from_dict(config.schema)
        self.processors[name] = processor

    def __call__(self, data: dict) -> list | dict:
        """Answer one request; see the file.

        Returns: for an image {name: {"value": ..., "probability": ...}}, for a list of images a
            list of them; for a query [{"index": place among the images, "score": ...}, ...], best
            first; see the file for the score.
        Raises: ValueError when something is wrong with the request.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"The request must be a JSON object, got {type(data).__name__}.")
        inputs = data.get("inputs", data if "query" in data else None)
        parameters = dict(data.get("parameters") or {})
        if unknown := parameters.keys() - PARAMETERS:
            raise ValueError(
                f"`parameters` must be among {sorted(PARAMETERS)}, got {sorted(unknown)}."
            )
        if isinstance(inputs, Mapping):
            return self.rank(inputs, parameters)
        answers = self.recognise(read_images(inputs), parameters)
        return answers if isinstance(inputs, (list, tuple)) else answers[0]

    def recognise(self, images: list[Image.Image], parameters: dict) -> list[dict]:
        """What each crop shows."""
        refuse(parameters, "top_k", "adapter", "evidence")
        with self.lock:
            (logits,) = self._batched(["logits"], images, parameters)
        decoded = self.processor.decode(logits, parameters.get("threshold"))
        return [
            {name: {"value": v, "probability": float(p)} for name, (v, p) in said.items()}
            for said in decoded
        ]

    def rank(self, inputs: Mapping, parameters: dict) -> list[dict]:
        """The images of `inputs`, by how well they fit its query."""
        refuse(parameters, "threshold")
        if not inputs.get("query") or "images" not in inputs:
            raise ValueError('`inputs` must have "query" and "images", got ' + str(sorted(inputs)))
        images = read_images(list_of(inputs["images"]))
        name = self._adapter_name(parameters.get("adapter"))
        processor, evidence = self.processors[name], flag(parameters, "evidence", True)
        queries = np.array([processor.query_values(inputs["query"])])
        prepared = processor(labels=queries, return_tensors="pt").to(self.device)
        with self.lock, torch.inference_mode():
            self.model.set_adapter(name)
            wanted = self.model.get_query_features(**prepared).cpu()
            found = self._batched(["image_embeds", "logits"], images, parameters)
            score = search_scores_of(self.model)
            scores = score(self.model, wanted, found[0], queries, found[1], evidence)
        scores = torch.from_numpy(scores[0])
        order = scores.argsort(descending=True, stable=True)[: top_k(parameters)].tolist()
        return [{"index": index, "score": scores[index].item()} for index in order]

    def _adapter_name(self, name: str | None) -> str:
        known = sorted(self.processors)
        if not known:
            raise ValueError("`query` needs a retrieval adapter; this repository has none.")
        if name is None:
            return "peta" if "peta" in known else known[0]
        if name not in known:
            raise ValueError(f"`adapter` must be one of {known}, got {name!r}.")
        return name

    @torch.inference_mode()
    def _batched(
        self, names: list[str], images: list[Image.Image], parameters: dict
    ) -> list[torch.Tensor]:
        """These outputs of the model, each (images, ...) in float32; some images at a time."""
        size = positive(parameters, "batch_size", 32)
        outputs = []
        for start in range(0, len(images), size):
            batch = self.processor(images=images[start : start + size], return_tensors="pt")
            output = self.model(**batch.to(self.device))
            outputs.append([output[name].float().cpu() for name in names])
        return [torch.cat(parts) for parts in zip(*outputs, strict=True)]


def search_scores_of(model):
    """`search_scores` of the code that a model came with: this file travels without the others."""
    package = type(model).__module__.rpartition(".")[0]
    return import_module(f"{package}.peft_clear").search_scores


def base_of(folder: Path) -> str:
    """The base of the adapter in a folder.

    Raises: ValueError when the folder holds neither a model nor an adapter.
    """
    settings = folder / ADAPTER_SETTINGS
    if not settings.is_file():
        raise ValueError(f"`path` must hold a CLEAR model or adapter, got {str(folder)!r}.")
    return json.loads(settings.read_text(encoding="utf-8"))["base_model_name_or_path"]


def read_images(inputs) -> list[Image.Image]:
    """One image or a list of them, whole and of a bearable size.

    Raises: ValueError when there is none, too many, or one that cannot be read.
    """
    images = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not 1 <= len(images) <= MOST_IMAGES:
        raise ValueError(f"`inputs` must be 1 to {MOST_IMAGES} images, got {len(images)}.")
    return [read_image(image) for image in images]


def read_image(image) -> Image.Image:
    """One image of base64, bytes, or PIL."""
    if isinstance(image, str):
        image = from_base64(image)
    if isinstance(image, (bytes, bytearray)):
        image = from_bytes(bytes(image))
    if not isinstance(image, Image.Image):
        raise ValueError(
            f"`inputs` must be images in base64, got {type(image).__name__}. See handler.py."
        )
    return image


def from_base64(text: str) -> bytes:
    """The bytes of an image in base64; never an address or a path."""
    head, comma, rest = text.partition(",")
    is_data = head.startswith("data:image/") and head.endswith(";base64") and comma
    try:
        return base64.b64decode("".join((rest if is_data else text).split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(
            f"`inputs` must be images in base64, got {text[:40]!r}. Addresses and paths are not "
            "opened: send the picture itself."
        ) from None


def from_bytes(data: bytes) -> Image.Image:
    """A whole picture; what is too large is refused before it is unpacked."""
    if len(data) > MOST_BYTES:
        raise ValueError(
            f"`inputs` must have at most {MOST_BYTES:,} bytes each, got {len(data):,}."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked below
            image = Image.open(io.BytesIO(data))
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"`inputs` must be whole pictures of at most {MOST_PIXELS:,} pixels: {error}"
        ) from None
    return image


def list_of(images) -> list:
    """`images` as they must come with a query."""
    if not isinstance(images, (list, tuple)):
        raise ValueError(f"`images` must be a list, got {type(images).__name__}.")
    return list(images)


def top_k(parameters: dict) -> int | None:
    """How many images a ranking keeps; None: all."""
    return None if parameters.get("top_k") is None else positive(parameters, "top_k", 1)


def positive(parameters: dict, name: str, default: int) -> int:
    """A parameter that is a whole number of at least 1."""
    value = parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
    return value


def flag(parameters: dict, name: str, default: bool) -> bool:
    """A parameter that is true or false."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be true or false, got {value!r}.")
    return value


def refuse(parameters: dict, *names: str) -> None:
    """Raise for parameters of the other task, which would do nothing."""
    if found := [name for name in names if name in parameters]:
        raise ValueError(f"`parameters` must fit the task, got {', '.join(found)}.")
