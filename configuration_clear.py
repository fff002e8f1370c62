"""ClearConfig: every size and switch of CLEAR in one flat, typed, validated configuration.

Source: arXiv 2403.06119 for the parts; the sizes of the default values are those of the authors'
public C2T-Net code (Swin-B and EVA-L at 256 x 128).
"""

from copy import deepcopy
from dataclasses import fields
from difflib import get_close_matches

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig

AUTO_MAP = {
    "AutoConfig": "configuration_clear.ClearConfig",
    "AutoModel": "modeling_clear.ClearModel",
    "AutoModelForImageClassification": "modeling_clear.ClearForAttributeRecognition",
    "AutoImageProcessor": "processing_clear.ClearImageProcessor",
    "AutoProcessor": "processing_clear.ClearProcessor",
}

CUSTOM_PIPELINES = {  # as `pipeline(task, model=..., trust_remote_code=True)` finds them
    "person-attribute-recognition": {
        "impl": "pipeline_clear.PersonAttributePipeline",
        "pt": ["AutoModelForImageClassification"],
        "type": "image",
    },
    "person-attribute-retrieval": {
        "impl": "pipeline_clear.PersonRetrievalPipeline",
        "pt": ["AutoModel"],
        "type": "multimodal",
    },
}

PROBLEM_TYPE = "multi_label_classification"  # each attribute is present or absent by itself

# Each field starts with the part that reads it; no field of transformers itself starts so.
PREFIXES = ("image_", "local_", "global_", "channel_", "fusion_", "attribute_", "text_")
SWITCHES = ("use_local_", "use_global_", "use_channel_")

POSITIVE = ("image_height", "image_width", "fusion_num_heads", "initializer_range")
POSITIVE_LOCAL = ("local_patch_size", "local_window_size", "local_embed_dim", "local_mlp_ratio")
POSITIVE_GLOBAL = (
    "global_patch_size",
    "global_embed_dim",
    "global_depth",
    "global_num_heads",
    "global_mlp_ratio",
)
RATES = ("channel_attention_dropout", "local_drop_path_rate", "global_drop_path_rate")

# Named sizes; ClearConfig.preset(name) builds one.
PRESETS = {
    "clear-tiny": {  # the default checkpoint: 7.5 M parameters, made for two processor cores
        "image_height": 128,
        "image_width": 64,
        "local_embed_dim": 32,
        "local_window_size": 4,
        "local_depths": (2, 2, 4, 2),
        "local_num_heads": (1, 2, 4, 8),
        "global_patch_size": 16,
        "global_embed_dim": 256,
        "global_depth": 4,
        "global_num_heads": 4,
    },
    "clear-small": {  # Swin-T and ViT-S
        "local_embed_dim": 96,
        "local_depths": (2, 2, 6, 2),
        "local_num_heads": (3, 6, 12, 24),
        "local_architecture": "swin_tiny_patch4_window7_224.ms_in22k",
        "global_patch_size": 16,
        "global_embed_dim": 384,
        "global_depth": 12,
        "global_num_heads": 6,
        "global_architecture": "vit_small_patch16_224.augreg_in21k_ft_in1k",
    },
    "clear-base": {  # the paper's: Swin-B, EVA-L and GPT-2; sizes are the defaults of ClearConfig
        "local_architecture": "swin_base_patch4_window7_224.ms_in22k",
        "global_architecture": "eva_large_patch14_196.in22k_ft_in1k",
        "text_source": "openai-community/gpt2",
    },
}


@strict
class ClearConfig(PreTrainedConfig):
    """Configuration of `ClearModel` and `ClearForAttributeRecognition`.

    Fields are prefixed by the part that reads them. Attribute names are `id2label`.

    Args:
        image_height, image_width: size of `pixel_values` in pixels.
        use_local_branch, use_global_branch: one of them may be off (ablation).
        local_patch_size, local_window_size, local_embed_dim, local_depths, local_num_heads,
            local_mlp_ratio, local_drop_path_rate: the shifted-window transformer; stage `i` has
            width `local_embed_dim * 2**i` and a grid of `image / (local_patch_size * 2**i)`.
        local_architecture, global_architecture: the timm model, with its tag, whose pre-trained
            weights `ClearModel.from_pretrained_backbones` puts into the branch; None: no such.
        use_channel_attention: a channel-aware self-attention before each local stage.
        channel_attention_dropout: drop-out on its output, before the residual.
        channel_attention_published_layout: reproduce the memory layout of the authors' public
            code, which weights trained with that code need. Off: the equations of the paper.
        global_patch_size, global_embed_dim, global_depth, global_num_heads, global_mlp_ratio,
            global_drop_path_rate: the plain vision transformer.
        fusion_embed_dim: common width of the two branches; None: the larger of the two. A branch
            of another width is projected.
        fusion_num_heads: heads of each cross attention.
        use_local_fusion: the pooled local token attends to the global patch tokens.
        use_global_fusion: the class token attends to the local tokens.
        attribute_positive_ratios: share of positives of each attribute on the training split,
            in [0, 1]; the weights of the recognition loss. None: every weight is equal.
        attribute_weighting: how they weigh: "exponential" (authors' public code) or "balanced"
            (positives and negatives of an attribute count the same).
        text_config: configuration of the frozen language model; None: there is none.
        text_pooling: "mean" over the tokens (encoders) or "last" token (decoders).
        text_source, text_revision: folder or Hub id, and revision, of the language model's weights.

    Raises:
        ValueError: for a field outside its range, sizes that do not fit each other, or a name
            that looks like a field and is none (transformers would store it and ignore it).
    """

    model_type = "clear"
    sub_configs = {"text_config": AutoConfig}
    keys_to_ignore_at_inference = ["features", "image_embeds", "query_embeds"]

    image_height: int = 256
    image_width: int = 128

    use_local_branch: bool = True
    local_patch_size: int = 4
    local_window_size: int = 7
    local_embed_dim: int = 128
    local_depths: list[int] | tuple[int, ...] = (2, 2, 18, 2)
    local_num_heads: list[int] | tuple[int, ...] = (4, 8, 16, 32)
    local_mlp_ratio: float | int = 4.0
    local_drop_path_rate: float | int = 0.0
    local_architecture: str | None = None

    use_channel_attention: bool = True
    channel_attention_dropout: float | int = 0.1
    channel_attention_published_layout: bool = False

    use_global_branch: bool = True
    global_patch_size: int = 14
    global_embed_dim: int = 1024
    global_depth: int = 24
    global_num_heads: int = 16
    global_mlp_ratio: float | int = 4.0
    global_drop_path_rate: float | int = 0.0
    global_architecture: str | None = None

    fusion_embed_dim: int | None = None
    fusion_num_heads: int = 8
    use_local_fusion: bool = True
    use_global_fusion: bool = True

    attribute_positive_ratios: list[float | int] | tuple[float | int, ...] | None = None
    attribute_weighting: str = "exponential"

    text_config: dict | PreTrainedConfig | None = None
    text_pooling: str = "mean"
    text_source: str | None = None
    text_revision: str | None = None

    initializer_range: float = 0.02

    def __post_init__(self, **kwargs):
        self._refuse_misspelt(kwargs)
        self.local_depths = list(self.local_depths)  # JSON has no tuples
        self.local_num_heads = list(self.local_num_heads)
        if self.attribute_positive_ratios is not None:
            self.attribute_positive_ratios = [float(r) for r in self.attribute_positive_ratios]
        if isinstance(self.text_config, dict):
            text_config = dict(self.text_config)
            if "model_type" not in text_config:
                raise ValueError(
                    "`text_config` must name its `model_type`, got "
                    f"{sorted(text_config)}. Give the configuration of a transformers model."
                )
            self.text_config = AutoConfig.for_model(text_config.pop("model_type"), **text_config)
        if self.problem_type not in (None, PROBLEM_TYPE):
            raise ValueError(f"`problem_type` must be {PROBLEM_TYPE!r}, got {self.problem_type!r}.")
        self.problem_type = PROBLEM_TYPE
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        kwargs.setdefault("custom_pipelines", deepcopy(CUSTOM_PIPELINES))
        super().__post_init__(**kwargs)
        if self.id2label is not None and self.label2id is None:
            self.label2id = {name: index for index, name in self.id2label.items()}
        self.check()

    def _refuse_misspelt(self, unknown: dict) -> None:
        """Raise for a name that transformers does not use and that is nearly one of ours."""
        own = {field.name for field in fields(self)} - {f.name for f in fields(PreTrainedConfig)}
        for name in unknown:
            closest = get_close_matches(name, own, cutoff=0.85)
            if closest or name.startswith((*PREFIXES, *SWITCHES)):
                closest = closest or get_close_matches(name, own)
                hint = f"; closest: {', '.join(closest)}" if closest else ""
                raise ValueError(f"Names must be fields of ClearConfig, got `{name}`{hint}.")

    @classmethod
    def preset(cls, name: str, **overrides) -> "ClearConfig":
        """The configuration of a named size, with some fields replaced.

        >>> ClearConfig.preset("clear-tiny", num_labels=35).feature_dim
        512
        """
        if name not in PRESETS:
            raise ValueError(f"`name` must be one of {', '.join(PRESETS)}, got {name!r}.")
        return cls(**{**PRESETS[name], **overrides})

    @property
    def local_widths(self) -> list[int]:
        """Channels of each local stage."""
        return [self.local_embed_dim * 2**stage for stage in range(len(self.local_depths))]

    @property
    def local_grids(self) -> list[tuple[int, int]]:
        """(height, width) in tokens of each local stage."""
        height = self.image_height // self.local_patch_size
        width = self.image_width // self.local_patch_size
        return [(height >> stage, width >> stage) for stage in range(len(self.local_depths))]

    @property
    def fusion_dim(self) -> int:
        """Width of both branches where they are fused."""
        if self.fusion_embed_dim is not None:
            return self.fusion_embed_dim
        widths = [self.local_widths[-1]] * self.use_local_branch
        return max(widths + [self.global_embed_dim] * self.use_global_branch)

    @property
    def feature_dim(self) -> int:
        """Width of `features`: one `fusion_dim` for each branch that is on."""
        return self.fusion_dim * (self.use_local_branch + self.use_global_branch)

    def check(self) -> None:
        """Check that the fields fit each other, as a model does before it is built.

        Raises:
            ValueError: naming the field, the rule, the value and the remedy.
        """
        if not (self.use_local_branch or self.use_global_branch):
            raise ValueError(
                "`use_local_branch` and `use_global_branch` must not both be False: "
                "the model would see nothing. Switch one on."
            )
        self._require_positive(POSITIVE)
        for name in RATES:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}.")
        if self.use_local_branch:
            self._check_local()
        if self.use_global_branch:
            self._check_global()
        self._check_fusion()
        if self.text_pooling not in ("mean", "last"):
            raise ValueError(f'`text_pooling` must be "mean" or "last", got {self.text_pooling!r}.')
        self._check_ratios()

    def _require_positive(self, names: tuple[str, ...]) -> None:
        for name in names:
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")

    def _check_fusion(self) -> None:
        if self.fusion_embed_dim is not None:
            self._require_positive(("fusion_embed_dim",))
        if self.fusion_dim % self.fusion_num_heads:
            raise ValueError(
                f"`fusion_num_heads` must divide the fusion width {self.fusion_dim}, "
                f"got {self.fusion_num_heads}."
            )

    def _check_ratios(self) -> None:
        ratios = self.attribute_positive_ratios
        if ratios is not None and len(ratios) != self.num_labels:
            raise ValueError(
                "`attribute_positive_ratios` must have one value for each of the "
                f"{self.num_labels} attributes, got {len(ratios)}. Set it to None, or to those of "
                "the new training split, together with `id2label`."
            )
        if ratios is not None and not all(0.0 <= ratio <= 1.0 for ratio in ratios):
            raise ValueError("`attribute_positive_ratios` must lie in [0, 1].")
        if self.attribute_weighting not in ("exponential", "balanced"):
            raise ValueError(
                "`attribute_weighting` must be exponential or balanced, got "
                f"{self.attribute_weighting!r}."
            )

    def _check_local(self) -> None:
        self._require_positive(POSITIVE_LOCAL)
        depths, heads = self.local_depths, self.local_num_heads
        for name in ("local_depths", "local_num_heads"):
            if any(value < 1 for value in getattr(self, name)):
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        if not depths or len(depths) != len(heads):
            raise ValueError(
                f"`local_num_heads` must have one value for each stage of `local_depths` {depths}, "
                f"got {heads}."
            )
        step = self.local_patch_size * 2 ** (len(depths) - 1)
        if self.image_height % step or self.image_width % step:
            raise ValueError(
                f"`image_height` and `image_width` must be multiples of {step} (`local_patch_size` "
                f"{self.local_patch_size}, {len(depths)} stages), got {self.image_height} x "
                f"{self.image_width}."
            )
        if any(width % count for width, count in zip(self.local_widths, heads, strict=True)):
            raise ValueError(
                f"`local_num_heads` must divide the stage widths {self.local_widths}, got {heads}."
            )

    def _check_global(self) -> None:
        self._require_positive(POSITIVE_GLOBAL)
        if self.global_embed_dim % self.global_num_heads:
            raise ValueError(
                f"`global_num_heads` must divide `global_embed_dim` {self.global_embed_dim}, "
                f"got {self.global_num_heads}."
            )
        if min(self.image_height, self.image_width) < self.global_patch_size:
            raise ValueError(
                f"`global_patch_size` must not exceed the image {self.image_height} x "
                f"{self.image_width}, got {self.global_patch_size}."
            )


ClearConfig.register_for_auto_class()

__all__ = ["PRESETS", "ClearConfig"]
