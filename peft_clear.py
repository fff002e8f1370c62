"""The retrieval adapters of CLEAR as a PEFT method: the paper's f_ret on a frozen f_par.

Source: arXiv 2403.06119. An adapter fills the three empty slots of `ClearModel` with projections to
a joint space and leaves everything else as it is, so recognition does not change by one bit.
Importing this file (or `modeling_clear.py`) registers the method: before that, PEFT raises
KeyError 'CLEAR_ADAPTER' for an adapter's folder.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from .adapter_config_clear import (
    ATTRIBUTES,
    SLOT_INPUTS,
    TEXT,
    ClearAdapterConfig,
    ClearPeftType,
)
from .attributes_clear import AttributeSchema
from .evidence_clear import fused_scores, query_evidence

# Not the lower-case type, as in PEFT's own methods: transformers would then report the weights of
# every loaded adapter as missing when it loads the next.
PREFIX = "retrieval_"
PROJECTIONS = PREFIX + "projections"
LEAST_SPREAD = 1e-3  # of embeddings of unit length; what differs less is noise


class Projection(nn.Module):
    """Linear map, or perceptron with ReLU, to the joint space or to one half of it.

    Args:
        sizes: widths of the input, of each hidden layer and of the output.
        encoder: makes the first layer's input, without weights that learn; None: the input itself.
        in_features: what goes in, where that is not `sizes[0]`.
    Shape: (batch, in_features) -> (batch, sizes[-1]).

    >>> Projection([4, 3, 2], dropout=0.0)(torch.ones(5, 4)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        dropout: float,
        encoder: nn.Module | None = None,
        in_features: int | None = None,
    ):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.dropout = nn.Dropout(dropout)
        self.encoder = encoder
        self.in_features = in_features or sizes[0]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        first, *others = self.layers
        if self.encoder is not None:
            inputs = self.encoder(inputs)
        outputs = first(self.dropout(inputs))
        for layer in others:
            outputs = layer(self.dropout(functional.relu(outputs)))
        return outputs


class Standardization(nn.Module):
    """Takes from embeddings what all have in common, and lengthens what tells them apart.

    A language model embeds all descriptions of people alike: most of the unit length is their mean.
    As it is, such an input is weak beside an attribute vector of ones, and learns slowly. Ours.

    Shape: (batch, width) -> (batch, width).

    >>> standardize = Standardization(2).fit(torch.tensor([[0.8, 0.6], [0.8, -0.6]]), 3.0)
    >>> standardize(torch.tensor([[0.8, 0.6]])).round(decimals=4)
    tensor([[0., 3.]])
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("factor", torch.ones(()))

    @torch.no_grad()
    def fit(self, embeds: torch.Tensor, length: float) -> "Standardization":
        """Take mean and factor from embeddings (count, width), which then have this length.

        Args: length: root of the mean square length; nearly equal embeddings stay shorter.
        """
        self.mean.copy_(embeds.mean(0))
        spread = (embeds - self.mean).square().sum(1).mean().sqrt()
        self.factor.copy_(length / spread.clamp(min=LEAST_SPREAD))
        return self

    def forward(self, embeds: torch.Tensor) -> torch.Tensor:
        return (embeds - self.mean) * self.factor


class NoProjection(nn.Module):
    """Stands in a slot that an adapter does not use: its half of the joint space has width 0."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs[..., :0]


class ClearAdapterLayer(nn.Module, BaseTunerLayer):
    """One slot of `ClearModel` with the projections of all loaded adapters.

    Args:
        base_layer: the empty slot.
        input_name: what the slot reads, for messages.
    Shape: (batch, width of the input) -> (batch, width of the active adapter's half), or the input
        itself while adapters are disabled.
    """

    adapter_layer_names = (PROJECTIONS,)

    def __init__(self, base_layer: nn.Module, input_name: str):
        super().__init__()
        self.base_layer = base_layer
        self.input_name = input_name
        self.merged_adapters = []
        self.retrieval_projections = nn.ModuleDict()

    @property
    def is_filled(self) -> bool:
        """Whether an adapter is active and not disabled."""
        return bool(self.active_adapters) and not self.disable_adapters

    def reads_input(self, adapter_names: Sequence[str] | None = None) -> bool:
        """Whether the active adapter, or one of those named, has a projection here."""
        names = self.active_adapters if adapter_names is None else adapter_names
        return any(isinstance(self._projection(name), Projection) for name in names)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make one adapter the active one; see `BaseTunerLayer.set_adapter`."""
        if not isinstance(adapter_names, str) and len(adapter_names) > 1:
            raise ValueError(
                "`adapter_name` must be one name: each adapter has a joint space of its own, got "
                f"{list(adapter_names)}. For a mixed batch give `adapter_names` to the model."
            )
        super().set_adapter(adapter_names, inference_mode)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Refuse: an empty slot has no weight to merge into."""
        raise_not_mergeable()

    def forward(
        self, inputs: torch.Tensor, adapter_names: Sequence[str] | None = None
    ) -> torch.Tensor:
        if not self.is_filled:
            return self.base_layer(inputs)
        if adapter_names is None:
            return self._project(inputs, self.active_adapters[0])
        return self._project_mixed(inputs, list(adapter_names))

    def _project_mixed(self, inputs: torch.Tensor, adapter_names: list[str]) -> torch.Tensor:
        """Project each row with the adapter that is named for it."""
        if len(adapter_names) != len(inputs):
            raise ValueError(
                f"`adapter_names` must name one adapter for each row of `{self.input_name}`, got "
                f"{len(adapter_names)} names for {len(inputs)} rows."
            )
        rows = {name: [] for name in adapter_names}
        for row, name in enumerate(adapter_names):
            rows[name].append(row)
        outputs = [self._project(inputs[found], name) for name, found in rows.items()]
        widths = {name: out.shape[-1] for name, out in zip(rows, outputs, strict=True)}
        if len(set(widths.values())) > 1:
            raise ValueError(
                f"`adapter_names` must name adapters of one width in `{self.input_name}`, got "
                f"{widths}. Give each adapter a batch of its own."
            )
        order = torch.tensor([row for found in rows.values() for row in found]).argsort()
        return torch.cat(outputs)[order.to(inputs.device)]

    def _project(self, inputs: torch.Tensor, name: str) -> torch.Tensor:
        projection = self._projection(name)
        if isinstance(projection, NoProjection):
            return projection(inputs)
        if inputs.shape[-1] != projection.in_features:
            raise ValueError(
                f"`{self.input_name}` must be (batch, {projection.in_features}) for the retrieval "
                f"adapter {name!r}, got {tuple(inputs.shape)}. Prepare them for this adapter's "
                "schema."
            )
        return projection(self._cast_input_dtype(inputs, projection.layers[0].weight.dtype))

    def _projection(self, name: str) -> nn.Module:
        projections = self.retrieval_projections
        if name not in projections:
            raise ValueError(
                f"`adapter_names` must name loaded adapters {list(projections)}, got {name!r}."
            )
        return projections[name]


class ClearAdapterModel(BaseTuner):
    """Puts adapters into the slots of a `ClearModel`; PEFT makes it, users never do."""

    prefix = PREFIX
    tuner_layer_cls = ClearAdapterLayer

    def _prepare_adapter_config(
        self, peft_config: ClearAdapterConfig, model_config: dict
    ) -> ClearAdapterConfig:
        """Fill in the widths of the base, or say that the adapter belongs to another base."""
        if not all(hasattr(self.model, slot) for slot in SLOT_INPUTS):
            raise ValueError(
                "`model` must be a ClearModel (AutoModel), which has slots for retrieval adapters, "
                f"got {type(self.model).__name__}."
            )
        config = self.model.config
        match_width(peft_config, "visual_dim", config.feature_dim)
        if peft_config.uses_text:
            if config.text_config is None:
                raise ValueError(
                    f"`query_kind` must be 'hard' for a base without a language model, got "
                    f"{peft_config.query_kind!r}."
                )
            match_width(peft_config, "text_dim", config.text_config.hidden_size)
        return peft_config

    @staticmethod
    def _check_target_module_exists(peft_config: ClearAdapterConfig, key: str) -> bool:
        return key in SLOT_INPUTS  # a language model may have modules of the same name inside

    def inject_adapter(self, model: nn.Module, adapter_name: str, *args, **kwargs) -> None:
        """As in the parent; an adapter that does not fit leaves nothing behind."""
        try:
            check_adapter_name(adapter_name)
            super().inject_adapter(model, adapter_name, *args, **kwargs)
        except Exception:
            self.peft_config.pop(adapter_name, None)
            raise

    def _create_and_replace(
        self,
        peft_config: ClearAdapterConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        in_features, out_features = peft_config.slot_sizes(target_name)
        projection = NoProjection()
        if out_features:
            sizes = [in_features, *peft_config.hidden_dims, out_features]
            encoder, width = None, in_features
            if target_name == ATTRIBUTES:
                encoder, width = peft_config.attribute_encoder(), peft_config.num_attributes
            elif target_name == TEXT and peft_config.standardize_text:
                encoder = Standardization(in_features)
            projection = Projection(sizes, peft_config.dropout, encoder, width)
            if not projection.layers[0].weight.is_meta:
                projection.to(self.model.device)
        layer = target
        if not isinstance(layer, ClearAdapterLayer):
            layer = ClearAdapterLayer(target, SLOT_INPUTS[target_name])
            self._replace_module(parent, target_name, layer, target)
        layer.retrieval_projections[adapter_name] = projection
        layer.train(target.training)

    def _replace_module(self, parent, child_name: str, new_module: nn.Module, child) -> None:
        # The parent's version reads the weight of the child, and an empty slot has none.
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise_not_mergeable()

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # The parent's version expects the name next to last; here layers stand behind it.
        return key.replace(f".{PROJECTIONS}.{adapter_name}.", f".{PROJECTIONS}.")

    @contextmanager
    def _enable_peft_forward_hooks(self, *args, adapter_names: list[str] | None = None, **kwargs):
        """Hand `adapter_names` on to the model; PEFT takes it out of the arguments before."""
        if adapter_names is None:  # a hook, even one that does nothing, cannot be compiled
            yield
            return
        handle = self.model.register_forward_pre_hook(
            lambda model, args, inputs: (args, {**inputs, "adapter_names": adapter_names}),
            with_kwargs=True,
        )
        try:
            yield
        finally:
            handle.remove()


def match_width(config: ClearAdapterConfig, name: str, width: int) -> None:
    """Set a width that is None to that of the base; raise when it is another."""
    given = getattr(config, name)
    if given not in (None, width):
        raise ValueError(
            f"`{name}` must be {width}, the width of this base, got {given}: the adapter was "
            f"trained for another base, {config.base_model_name_or_path!r}."
        )
    setattr(config, name, width)


def check_adapter_name(name: str) -> None:
    """Refuse a name that cannot be part of a parameter's name, in words that say why."""
    if not name or "." in name or hasattr(nn.ModuleDict(), name):
        raise ValueError(
            "`adapter_name` must have no dot and be no attribute of nn.ModuleDict, got "
            f"{name!r}. Choose another, for example the data set's name."
        )


def raise_not_mergeable() -> None:
    """The one answer to every attempt to merge."""
    raise ValueError(
        "Retrieval adapters of CLEAR must stay apart: the base has no weights to merge them into. "
        "Save the adapter and load it beside the base, or remove it with `unload()`."
    )


def active_adapter_config(model: nn.Module) -> ClearAdapterConfig:
    """The configuration, vocabulary included, of the adapter that a model uses now.

    Args:
        model: ClearModel with an adapter, or the PeftModel around it.

    Raises:
        ValueError: when no adapter is active.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not base.is_retrieval_ready:
        raise ValueError("`model` must have an active retrieval adapter, got none; load one first.")
    return base.peft_config[base.visual_projection.active_adapters[0]]


def weights_fingerprint(model: nn.Module) -> str:
    """SHA-256 of the base's weights and buffers as single-precision numbers, adapters left out.

    Args:
        model: ClearModel, or the PeftModel around it.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    digest = hashlib.sha256()
    for name, value in sorted(base.state_dict().items()):
        if PREFIX not in name:
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def search_scores(
    model: nn.Module,
    query_embeds: torch.Tensor,
    image_embeds: torch.Tensor,
    queries: np.ndarray | None = None,
    logits: torch.Tensor | None = None,
    evidence: bool = True,
) -> np.ndarray:
    """Scores that rank a gallery by the active adapter: cosine, and evidence where it has a weight.

    Args:
        model: with an active adapter; its `fusion_weight` says how much the classifier counts.
        query_embeds: (queries, embed_dim). image_embeds: (gallery, embed_dim), both unit length.
        queries: (queries, attributes) of 1, 0 and -100, as the processor's `query_values` gives.
        logits: (gallery, attributes of the base) of the classifier.
        evidence: False: the cosine alone, whatever the adapter says.
    Returns: (queries, gallery): cosines where `fusion_weight` is 0, else `fused_scores`.
    Raises: ValueError when there is a `fusion_weight`, and `queries` or `logits` are not given.
    """
    config = active_adapter_config(model)
    cosines = (query_embeds.float() @ image_embeds.float().T).detach().cpu().numpy()
    if not (evidence and config.fusion_weight):
        return cosines
    if queries is None or logits is None:
        raise ValueError(
            "`queries` and `logits` must be given: the adapter's `fusion_weight` is "
            f"{config.fusion_weight}. Set it to 0 to rank by the cosine alone."
        )
    found = adapter_evidence(model, queries, logits)
    return fused_scores(cosines, found, config.scale, config.fusion_weight)


def adapter_evidence(model: nn.Module, queries: np.ndarray, logits: torch.Tensor) -> np.ndarray:
    """`query_evidence` of queries in the active adapter's vocabulary.

    Of attributes that the base does not recognise there is no evidence.

    Shape: queries (queries, attributes of the adapter), logits (gallery, attributes of the base) ->
        (queries, gallery).
    """
    schema, columns, places = shared_vocabulary(model)
    logits = logits.float().cpu().numpy()[:, places]
    return query_evidence(logits, np.asarray(queries)[:, columns], schema)


def shared_vocabulary(model: nn.Module) -> tuple[AttributeSchema, list[int], list[int]]:
    """What the active adapter and the classifier of its base both know, by the attributes' names.

    Returns: the adapter's schema of these attributes, their columns in its queries, and their
        columns in the base's logits.
    Raises: ValueError when the adapter has no schema.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = active_adapter_config(model)
    if config.schema is None:
        raise ValueError("`schema` of the adapter must say what its attributes mean, got None.")
    schema = AttributeSchema.from_dict(config.schema)
    places = {name: place for place, name in base.config.id2label.items()}
    shared = [name for name in schema.attributes if name in places]
    columns = [schema.index(name) for name in shared]
    return schema.subset(shared), columns, [places[name] for name in shared]


def save_adapter(model: nn.Module, directory: str | os.PathLike, base: str | None = None) -> None:
    """Save the active adapter: configuration and weights, each file whole or not at all.

    `PeftModel.save_pretrained` writes the same two files, and beside them a model card that names
    the local path of the base.

    Args:
        model: ClearModel with an adapter, or the PeftModel around it.
        directory: made if it does not exist; its other files stay.
        base: the base as the adapter's users find it, a Hub id or a relative path; None: the place
            it was loaded from, see `publishable_base`.

    Raises:
        ValueError: when no adapter is active.
    """
    config = active_adapter_config(model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    name = model.visual_projection.active_adapters[0]
    weights = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    weights = {f"base_model.model.{key}": stored(value) for key, value in weights.items()}
    base = base or config.base_model_name_or_path or model.name_or_path or None
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".unfinished-") as unfinished:
        save_file(weights, Path(unfinished, SAFETENSORS_WEIGHTS_NAME), metadata={"format": "pt"})
        published = replace(config, base_model_name_or_path=base, inference_mode=True)
        published.save_pretrained(unfinished)
        for file in sorted(Path(unfinished).iterdir(), reverse=True):  # weights first
            file.replace(directory / file.name)


def stored(weight: torch.Tensor) -> torch.Tensor:
    """A weight as it is saved: in half the space where half precision holds it exactly."""
    half = weight.detach().half()
    is_exact = weight.dtype == torch.float32 and torch.equal(half.float(), weight)
    return (half if is_exact else weight).contiguous()


# The first registration stays: classes of a second copy of this file work with it as well.
_TYPE = ClearPeftType.CLEAR_ADAPTER
PEFT_TYPE_TO_CONFIG_MAPPING.setdefault(_TYPE, ClearAdapterConfig)
PEFT_TYPE_TO_TUNER_MAPPING.setdefault(_TYPE, ClearAdapterModel)
PEFT_TYPE_TO_PREFIX_MAPPING.setdefault(_TYPE, PREFIX)

__all__ = [
    "ClearAdapterConfig",
    "ClearAdapterModel",
    "active_adapter_config",
    "adapter_evidence",
    "save_adapter",
    "search_scores",
    "shared_vocabulary",
    "weights_fingerprint",
]
