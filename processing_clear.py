"""ClearProcessor: images and attribute queries in, tensors out; probabilities in, names out.

Sources: the resize of the authors' public code (PIL, bilinear, ImageNet statistics); the queries of
arXiv 2403.06119: `hard` attribute vector, attribute `words`, `soft` pseudo-description.
"""

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image, ImageOps
from transformers import AutoImageProcessor, BatchFeature, ProcessorMixin
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, load_image

from .attributes_clear import ABSENT, PRESENT, QUERY_KINDS, UNKNOWN, AttributeSchema

REMOTE = ("http://", "https://", "data:image/")
DEFAULT_THRESHOLD = 0.5  # the field's convention; strict
FEW = 8  # so many logits, none negative or above 1, are no chance


class ClearImageProcessor(PilBackend):
    """Resize with PIL, then normalise: the very numbers of the authors' torchvision transform.

    transformers' default back end resizes tensors, which differs by up to two grey levels.
    """

    resample = Image.Resampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"height": 256, "width": 128}
    do_resize = True
    do_rescale = True
    do_normalize = True

    def fetch_images(self, image_url_or_urls):
        """One image or a list, opened as `to_rgb` opens them."""
        if isinstance(image_url_or_urls, (list, tuple)):
            return [self.fetch_images(image) for image in image_url_or_urls]
        return to_rgb(image_url_or_urls)

    def process_image(self, image, do_convert_rgb=None, input_data_format=None, **kwargs):
        """One image of any size and mode: (3, height, width) of 0..255."""
        return np.moveaxis(np.asarray(to_rgb(image)), -1, 0)


class ClearProcessor(ProcessorMixin):
    """Prepares what CLEAR reads and reads what CLEAR answers.

    Args:
        image_processor: any image processor of transformers; `for_schema` makes the right one.
        tokenizer: the language model's; None: hard queries only.
        schema: AttributeSchema, or its `to_dict()`.
        query_kind: "hard", "words", "soft" or "soft+hard"; what `queries` are turned into.
        max_query_tokens: longer pseudo-descriptions are an error, never cut.
        calibration: {"thresholds": {attribute: number in [0, 1)}, "criterion": what they
            maximise, "data": where they were chosen}; an attribute left out has 0.5, as all have
            with None. What `decode` takes when it is not told a threshold.

    >>> schema = AttributeSchema.from_names(["hat", "backpack"])
    >>> processor = ClearProcessor.for_schema(schema, 128, 64, query_kind="hard")
    >>> processor(queries={"hat": True})["query_attributes"]
    [[1, -100]]
    >>> processor.decode([50.0, 0.0])
    [{'hat': (True, 1.0), 'backpack': (False, 0.5)}]
    """

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        schema: AttributeSchema | Mapping | None = None,
        query_kind: str = "soft+hard",
        max_query_tokens: int = 128,
        calibration: Mapping | None = None,
    ):
        super().__init__(image_processor, tokenizer)
        if tokenizer is None:  # the parent saves what this names, and fails on None
            self.get_attributes = partial(list, ["image_processor"])
        if query_kind not in QUERY_KINDS:
            raise ValueError(f"`query_kind` must be one of {QUERY_KINDS}, got {query_kind!r}.")
        if schema is None:
            raise ValueError("`schema` must be an AttributeSchema or its dict, got None.")
        is_dict = isinstance(schema, Mapping)
        self.schema = AttributeSchema.from_dict(schema) if is_dict else schema
        self.query_kind = query_kind
        self.max_query_tokens = max_query_tokens
        self.calibration = None if calibration is None else dict(calibration)
        if calibration is not None:
            check_calibration(self.calibration, self.schema)

    @property
    def thresholds(self) -> np.ndarray:
        """(attributes,) float64: above it (strictly) an attribute is said to be present."""
        stored = {} if self.calibration is None else self.calibration["thresholds"]
        return np.array([stored.get(name, DEFAULT_THRESHOLD) for name in self.schema.attributes])

    @classmethod
    def for_schema(
        cls, schema: AttributeSchema, image_height: int, image_width: int, tokenizer=None, **kwargs
    ) -> "ClearProcessor":
        """The processor of a new model: PIL bilinear resize, ImageNet mean and deviation."""
        size = {"height": image_height, "width": image_width}
        image_processor = ClearImageProcessor(size=size)
        if tokenizer is not None and tokenizer.pad_token is None:  # GPT-2; the mask tells them
            tokenizer.pad_token = tokenizer.eos_token
        return cls(image_processor, tokenizer, schema, **kwargs)

    def check_argument_for_proper_class(self, argument_name, argument):
        """As in the parent; a processor without a tokenizer is one for hard queries."""
        if argument_name == "tokenizer" and argument is None:
            return type(None)
        return super().check_argument_for_proper_class(argument_name, argument)

    def to_dict(self) -> dict:
        """Plain JSON types; the schema written out, that there is no tokenizer, no empty entry."""
        schema, self.schema = self.schema, self.schema.to_dict()
        try:
            stored = super().to_dict() | ({"tokenizer": None} if self.tokenizer is None else {})
        finally:
            self.schema = schema
        if self.calibration is None:
            stored.pop("calibration")
        return stored

    @classmethod
    def _get_arguments_from_pretrained(cls, name, processor_dict=None, **kwargs):
        # The parent fails where no tokenizer was saved.
        if "tokenizer" in (processor_dict or {}):
            return [AutoImageProcessor.from_pretrained(name, **kwargs), None]
        return super()._get_arguments_from_pretrained(name, processor_dict, **kwargs)

    def __call__(
        self, images=None, queries=None, labels=None, return_tensors: str | None = None, **kwargs
    ) -> BatchFeature:
        """Prepare images, queries, or both.

        Args:
            images: one image or a list: PIL images of any size and 8 or 16 bit mode, uint8 arrays
                (height, width) or (height, width, 1 | 3 | 4), uint8 tensors with the channels
                first, paths or URLs.
            queries: one query or a list of them; a query is a dict ({"upper colour": "red",
                "backpack": True}), free text ("woman with a red top and a backpack"), or, inside
                a list, a list of names (["backpack", "hat"]). Of text, what means nothing to the
                schema is warned of.
            labels: instead of queries: label rows of 1, 0 and -100, (queries, attributes).
            return_tensors: "pt" or "np"; None: lists.
            **kwargs: of the image processor.
        Returns: BatchFeature with pixel_values (batch, 3, height, width), normalised; and, by
            query kind, input_ids and attention_mask (queries, tokens), query_attributes
            (queries, attributes) of 1, 0 and -100.
        Raises: ValueError for an image that cannot be read, or for a query that is empty or names
            what the schema does not know.
        """
        if images is None and queries is None and labels is None:
            raise ValueError("`images`, `queries` or `labels` must be given, got none of them.")
        if queries is not None and labels is not None:
            raise ValueError("`queries` and `labels` are two forms of one thing: give one of them.")
        if images is None and kwargs:
            raise TypeError(f"{', '.join(kwargs)} must come with `images`, got none.")
        data = {}
        if images is not None:
            images = list(map(to_rgb, as_list(images, "images")))
            data.update(self.image_processor(images, return_tensors=return_tensors, **kwargs))
        if queries is not None:
            labels = list(map(self.query_values, as_list(queries, "queries")))
        if labels is not None:
            data.update(self._prepare_queries(self._check_labels(labels), return_tensors))
        return BatchFeature(data, tensor_type=return_tensors)

    def query_values(self, query: str | Mapping | Sequence[str]) -> list[int]:
        """One query of any form as a label row: 1 wanted, 0 unwanted, -100 unsaid."""
        if isinstance(query, str):
            parsed = self.schema.parse(query)
            if parsed.not_understood:
                warnings.warn(
                    f"Not understood in the query {query!r}: {', '.join(parsed.not_understood)}. "
                    f"Understood: {parsed.query}.",
                    stacklevel=3,
                )
            query = parsed.query
        elif not isinstance(query, Iterable):
            raise ValueError(
                f"`queries` must be dicts, text or lists of names, got {type(query).__name__}."
            )
        return self.schema.query_values(query)

    def describe(self, query: str | Mapping | Sequence[str]) -> str:
        """The text that the language model reads for this query."""
        return self._text(self.query_values(query))

    def _text(self, values: Sequence[int]) -> str:
        say = self.schema.words if self.query_kind == "words" else self.schema.describe
        return say(values)

    def _check_labels(self, labels) -> list[list[int]]:
        """Label rows as lists, when each has the schema's length and asks for something."""
        rows = np.asarray(labels)
        if rows.ndim != 2 or rows.shape[1] != self.schema.num_attributes or not len(rows):
            raise ValueError(
                f"`labels` must be (queries, {self.schema.num_attributes}), got {rows.shape}."
            )
        if not np.isin(rows, (PRESENT, ABSENT, UNKNOWN)).all():
            raise ValueError(f"`labels` must be 1, 0 or -100, got {np.unique(rows)[:5].tolist()}.")
        if (rows == UNKNOWN).all(axis=1).any():
            raise ValueError("`labels` must state an attribute in each row, got a row of -100.")
        return rows.astype(int).tolist()

    def _prepare_queries(self, labels: list[list[int]], return_tensors) -> dict:
        data = {}
        if self.query_kind != "hard":
            if self.tokenizer is None:
                raise ValueError(
                    f'`query_kind` {self.query_kind!r} needs a tokenizer; use "hard" without one.'
                )
            tokens = self.tokenizer(
                [self._text(values) for values in labels], padding=True, return_tensors="np"
            )
            if tokens["input_ids"].shape[1] > self.max_query_tokens:
                raise ValueError(
                    f"`queries` must be at most {self.max_query_tokens} tokens long, got "
                    f"{tokens['input_ids'].shape[1]}. Name fewer attributes."
                )
            data = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        if self.query_kind in ("hard", "soft+hard"):
            data["query_attributes"] = np.asarray(labels, dtype=np.int64)
        return data if return_tensors else {name: array.tolist() for name, array in data.items()}

    def decode(self, logits, threshold: float | Sequence[float] | None = None) -> list[dict]:
        """Name what the model saw.

        Args:
            logits: (batch, attributes) of the recognition head, or one row.
            threshold: an attribute is said to be present above this probability (strictly): one
                number, or (attributes,). None: `thresholds`, the calibrated ones if there are any,
                else 0.5. It decides flags, and groups that may have none of their options; of the
                others the most probable option is given.
        Returns: for each image {group: (value, probability), flag: (bool, probability)}.
        Raises: ValueError for another shape, NaN, or a threshold outside [0, 1].
        """
        logits = logits.detach().float().cpu().numpy() if hasattr(logits, "detach") else logits
        logits = np.atleast_2d(np.asarray(logits, dtype=np.float64))
        count = self.schema.num_attributes
        if logits.ndim != 2 or logits.shape[1] != count or np.isnan(logits).any():
            raise ValueError(
                f"`logits` must be (batch, {count}) without NaN, got {logits.shape} with "
                f"{np.isnan(logits).sum()} NaN."
            )
        if count >= FEW and ((logits >= 0) & (logits <= 1)).all() and logits.any():
            warnings.warn(
                "`logits` all lie in [0, 1]: give the logits themselves, not their sigmoid.",
                stacklevel=2,
            )
        limits = np.asarray(self.thresholds if threshold is None else threshold, dtype=float)
        if limits.shape not in ((), (count,)) or not ((limits >= 0) & (limits <= 1)).all():
            raise ValueError(
                f"`threshold` must be one number in [0, 1], or {count} of them, got {threshold!r}."
            )
        probabilities = (1 + np.tanh(logits / 2)) / 2  # the sigmoid; this form cannot overflow
        return [self.schema.decode(row, limits) for row in probabilities]

    @property
    def model_input_names(self) -> list[str]:
        """Names of all tensors that the model may read."""
        return ["pixel_values", "input_ids", "attention_mask", "query_attributes"]


def check_calibration(calibration: Mapping, schema: AttributeSchema) -> None:
    """Raise ValueError unless a processor of this schema can store this; see ClearProcessor."""
    needed = {"thresholds", "criterion", "data"}
    if set(calibration) != needed or not isinstance(calibration["thresholds"], Mapping):
        raise ValueError(
            f"`calibration` must have exactly {sorted(needed)}, `thresholds` being a dict, "
            f"got {sorted(calibration)}."
        )
    for name, value in calibration["thresholds"].items():
        schema.index(name)
        if not isinstance(value, (int, float)) or not 0 <= value < 1:
            raise ValueError(f"`calibration` must have thresholds in [0, 1), got {name}: {value}.")


def as_list(one_or_many, name: str) -> list:
    """A list, tuple or (batch, ...) array as a list; anything else is one item."""
    many = isinstance(one_or_many, (list, tuple)) or getattr(one_or_many, "ndim", 0) == 4
    items = list(one_or_many) if many else [one_or_many]
    if not items:
        raise ValueError(f"`{name}` must not be empty, got an empty list.")
    return items


def to_rgb(image) -> Image.Image:
    """Any image as PIL RGB: upright, what is transparent becomes white, 16 bits become 8.

    Args:
        image: PIL image; uint8 array (height, width) or (height, width, 1 | 3 | 4); uint8 tensor
            (height, width) or (1 | 3 | 4, height, width); path or URL.
    Raises: ValueError for anything else, and for a file that holds no whole image.
    """
    if isinstance(image, (str, os.PathLike)):
        image = open_image(os.fspath(image))
    elif not isinstance(image, Image.Image):
        image = array_to_image(image)
    if 0 in image.size:
        raise ValueError(f"`images` must have pixels, got a size of {image.size}.")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"`images` must have 8 or 16 bits, got mode {image.mode!r}, which has no fixed range. "
            "Scale to 0..255 and convert to uint8 first."
        )
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def open_image(path: str) -> Image.Image:
    """The whole image of a file or URL."""
    if path.startswith(REMOTE):
        return load_image(path)
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:  # Pillow raises each for damaged files
        raise ValueError(f"`images` must be readable files, got {path!r}: {error}") from error


def array_to_image(data) -> Image.Image:
    """Array or tensor of grey levels or colours, 0..255, as an image."""
    is_tensor = hasattr(data, "detach")
    array = data.detach().cpu().numpy() if is_tensor else np.asarray(data)
    if is_tensor and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ValueError(
            "`images` must be PIL images, paths, uint8 arrays (height, width[, 1 | 3 | 4]) or "
            f"uint8 tensors ([1 | 3 | 4, ]height, width), got {type(data).__name__} of "
            f"{getattr(data, 'dtype', 'no number')} {tuple(getattr(data, 'shape', ()))}."
        )
    shape = array.shape[:2] if channels == 1 else array.shape
    return Image.fromarray(np.ascontiguousarray(array).reshape(shape))


ClearImageProcessor.register_for_auto_class()
ClearProcessor.register_for_auto_class()

__all__ = ["QUERY_KINDS", "ClearImageProcessor", "ClearProcessor"]
