"""What a retrieval adapter of CLEAR is: its sizes, its vocabulary and how it was trained.

Source: arXiv 2403.06119 for the query kinds and the margin learning; ASMR (ICCV 2021) for the
projections as small perceptrons and the usual values of the loss.
"""

import math
import warnings
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from peft import PeftConfig, TaskType

from .attributes_clear import QUERY_KINDS, AttributeSchema
from .onehot_clear import OneHotQuery
from .retrieval_loss_clear import MARGIN_KINDS

VISUAL, TEXT, ATTRIBUTES = "visual_projection", "text_projection", "attribute_projection"
SLOT_INPUTS = {VISUAL: "features", TEXT: "text_embeds", ATTRIBUTES: "query_attributes"}
ATTRIBUTE_ENCODINGS = ("signed", "one_hot")


class ClearPeftType(StrEnum):
    """The PEFT type of the adapters; PEFT's own enumeration is closed to other projects."""

    CLEAR_ADAPTER = "CLEAR_ADAPTER"


@dataclass
class ClearAdapterConfig(PeftConfig):
    """What a retrieval adapter is made of, what it understands and how it was trained.

    Args:
        embed_dim: width of the joint space; "soft+hard" gives one half to each query kind.
        query_kind: "hard" (attribute vector), "words" or "soft" (text), "soft+hard" (both). The
            first two text kinds differ only in the text that the language model reads.
        hidden_dims: widths of the hidden layers of each projection; []: linear.
        dropout: on the input of every linear layer.
        num_attributes: length of the attribute vector; None: that of the schema.
        visual_dim, text_dim: width of the backbone's feature and of the language model; None:
            those of the base.
        schema: `AttributeSchema.to_dict()` of the adapter's vocabulary.
        attribute_encoding: what the attribute half reads: "signed" (1, -1, 0) or "one_hot" choices
            (`OneHotQuery`, ASMR's form), which needs the `schema`.
        standardize_text: the text half reads embeddings by `Standardization`, whose numbers are
            saved with the weights.
        margin_kind, margin, scale: loss of the training; "angular" margins are in radians.
        partial_weight, semantic_weight: its weights of partial queries and of ASMR's regulariser.
        fusion_weight: of the classifier's evidence beside the cosine, see `search_scores`; 0: none.
        training_data: what the adapter was trained on, for the reader.
        revision, base_model_name_or_path: the base; a local path outside the working directory is
            never saved, only its last part.
        base_fingerprint: `weights_fingerprint` of the base, which tells another one by.

    Raises:
        ValueError: for a field outside its range.

    >>> ClearAdapterConfig(num_attributes=35, visual_dim=2048).slot_sizes("visual_projection")
    (2048, 512)
    >>> ClearAdapterConfig(num_attributes=35).slot_sizes("attribute_projection")
    (35, 256)
    """

    task_type: str | None = TaskType.FEATURE_EXTRACTION
    embed_dim: int = 512
    query_kind: str = "soft+hard"
    hidden_dims: list[int] = field(default_factory=list)
    dropout: float = 0.0
    num_attributes: int | None = None
    visual_dim: int | None = None
    text_dim: int | None = None
    schema: dict | None = None
    attribute_encoding: str = "signed"
    standardize_text: bool = False
    margin_kind: str = "additive"
    margin: float = 0.2
    scale: float = 12.0
    partial_weight: float = 0.0
    semantic_weight: float = 0.0
    fusion_weight: float = 0.0
    training_data: str = ""
    base_fingerprint: str | None = None

    target_modules = tuple(SLOT_INPUTS)  # no field: every adapter fills the same slots

    def __post_init__(self):
        # Without a task PEFT would save the path of the remote-code module instead.
        self.task_type = self.task_type or TaskType.FEATURE_EXTRACTION
        super().__post_init__()
        self.peft_type = ClearPeftType.CLEAR_ADAPTER
        self.hidden_dims = list(self.hidden_dims)
        if hasattr(self.schema, "to_dict"):
            self.schema = self.schema.to_dict()
        self._validate_shape()
        self._validate_vocabulary()
        self._validate_loss()

    @property
    def uses_text(self) -> bool:
        """Whether queries have a text half."""
        return self.query_kind != "hard"

    @property
    def uses_attributes(self) -> bool:
        """Whether queries have an attribute half."""
        return self.query_kind in ("hard", "soft+hard")

    def slot_sizes(self, slot: str) -> tuple[int | None, int]:
        """(input, output) width of the projection in a slot; output 0 where there is none."""
        if slot == VISUAL:
            return self.visual_dim, self.embed_dim
        query_dim = self.embed_dim // (self.uses_text + self.uses_attributes)
        if slot == TEXT:
            return self.text_dim, query_dim * self.uses_text
        encoder = self.attribute_encoder()
        return encoder.width if encoder else self.num_attributes, query_dim * self.uses_attributes

    def attribute_encoder(self) -> OneHotQuery | None:
        """What stands before the projection of the attribute half; None: nothing."""
        if self.attribute_encoding == "signed" or not self.uses_attributes:
            return None
        return OneHotQuery(AttributeSchema.from_dict(self.schema))

    def save_pretrained(self, save_directory: str, **kwargs) -> None:
        """Save as adapter_config.json, without the local path of the base."""
        base = publishable_base(self.base_model_name_or_path)
        published = replace(self, base_model_name_or_path=base)
        super(ClearAdapterConfig, published).save_pretrained(save_directory, **kwargs)

    def _validate_shape(self) -> None:
        if self.query_kind not in QUERY_KINDS:
            raise ValueError(f"`query_kind` must be one of {QUERY_KINDS}, got {self.query_kind!r}.")
        halves = self.uses_text + self.uses_attributes
        if self.embed_dim < 1 or self.embed_dim % halves:
            raise ValueError(
                f"`embed_dim` must be a positive multiple of {halves} for `query_kind` "
                f"{self.query_kind!r}, got {self.embed_dim}."
            )
        if any(width < 1 for width in self.hidden_dims):
            raise ValueError(f"`hidden_dims` must be positive widths, got {self.hidden_dims}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must lie in [0, 1), got {self.dropout}.")

    def _validate_vocabulary(self) -> None:
        if self.schema is not None:
            if "attributes" not in self.schema:
                raise ValueError(
                    "`schema` must be `AttributeSchema.to_dict()`, got a dict without 'attributes'."
                )
            named = len(self.schema["attributes"])
            if self.num_attributes not in (None, named):
                raise ValueError(
                    f"`num_attributes` must be the number of attributes of `schema`, {named}, got "
                    f"{self.num_attributes}."
                )
            self.num_attributes = named
        if self.uses_attributes and (self.num_attributes or 0) < 1:
            raise ValueError(
                f"`num_attributes` must be given for `query_kind` {self.query_kind!r}, got "
                f"{self.num_attributes}. Give it, or the `schema`."
            )
        if self.attribute_encoding not in ATTRIBUTE_ENCODINGS:
            raise ValueError(
                f"`attribute_encoding` must be one of {ATTRIBUTE_ENCODINGS}, got "
                f"{self.attribute_encoding!r}."
            )
        if self.attribute_encoding == "one_hot" and self.schema is None:
            raise ValueError('`schema` must be given for `attribute_encoding` "one_hot", got None.')

    def _validate_loss(self) -> None:
        if self.margin_kind not in MARGIN_KINDS:
            raise ValueError(
                f"`margin_kind` must be one of {MARGIN_KINDS}, got {self.margin_kind!r}."
            )
        limit = math.pi if self.margin_kind == "angular" else 2  # of an angle; of two cosines
        if not 0 <= self.margin < limit:
            raise ValueError(
                f"`margin` must lie in [0, {limit:.4g}) for {self.margin_kind!r}, got "
                f"{self.margin}."
            )
        if self.scale <= 0:
            raise ValueError(f"`scale` must be positive, got {self.scale}.")
        for name in ("partial_weight", "semantic_weight", "fusion_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")


def publishable_base(name: str | None) -> str | None:
    """The name of a base as it may be published: of an absolute path, no more than is needed.

    Returns: a Hub id or a relative path as it is; an absolute path relative to the working
        directory, or its last part when it lies outside.
    """
    if name is None or not Path(name).is_absolute():
        return name
    path, here = Path(name).resolve(), Path.cwd().resolve()
    if path.is_relative_to(here) and here != here.parent:  # of the root, all paths would show whole
        return path.relative_to(here).as_posix()
    warnings.warn(
        f"The base of the adapter is a local folder and is saved as {path.name!r}: set "
        "`base_model_name_or_path` of the adapter's configuration to a Hub id or a relative path.",
        stacklevel=3,
    )
    return path.name


__all__ = ["ClearAdapterConfig", "ClearPeftType", "publishable_base"]
