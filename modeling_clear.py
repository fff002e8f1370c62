"""CLEAR: a two-branch cross-transformer for person attribute recognition and retrieval.

Sources: arXiv 2403.06119 (the method); the facts of the authors' public C2T-Net code (the exact
backbone). The file reads from the parts to the whole: channel attention, local branch, global
branch, cross-fusion, backbone (the paper's f_par), recognition, retrieval.
"""

from dataclasses import dataclass
from os import PathLike

import torch
from timm.layers import PatchEmbed
from timm.models.swin_transformer import (
    PatchMerging,
    SwinTransformerBlock,
    WindowAttention,
    window_partition,
    window_reverse,
)
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)
from transformers.utils import ModelOutput, is_peft_available

from .attributes_clear import UNKNOWN
from .backbones_clear import load_pretrained_backbones
from .configuration_clear import ClearConfig
from .pipeline_clear import PersonAttributePipeline  # noqa: F401  # so that it travels as well

if is_peft_available():
    # Registers the adapters with PEFT, and makes their file travel with a saved model.
    from .peft_clear import ClearAdapterConfig  # noqa: F401


@dataclass
class ClearOutput(ModelOutput):
    """What CLEAR returns; a field is set when its inputs were given.

    loss: scalar. logits: (batch, attributes). features: (batch, feature_dim), the output of the
    backbone. image_embeds: (batch, embed_dim) and query_embeds: (queries, embed_dim), unit length.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    features: torch.Tensor | None = None
    image_embeds: torch.Tensor | None = None
    query_embeds: torch.Tensor | None = None


class ChannelAwareSelfAttention(nn.Module):
    """Self-attention between channels: each channel is a token whose embedding is its map.

    Source: the paper's channel-aware self-attention; one head, no norm, no output projection.
    Args:
        num_tokens: positions of the grid, N = height * width.
        published_layout: see `read_as_published`.
    Shape: (batch, height, width, channels) -> the same.
    """

    def __init__(self, num_tokens: int, dropout: float = 0.0, published_layout: bool = False):
        super().__init__()
        self.query = nn.Linear(num_tokens, num_tokens)
        self.key = nn.Linear(num_tokens, num_tokens)
        self.value = nn.Linear(num_tokens, num_tokens)
        self.dropout = nn.Dropout(dropout)
        self.published_layout = published_layout

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        _, height, width, _ = hidden_states.shape
        maps = hidden_states.flatten(1, 2).transpose(1, 2)  # (batch, channels, tokens)
        mixed = functional.scaled_dot_product_attention(
            self.query(maps), self.key(maps), self.value(maps)
        )
        if self.published_layout:
            mixed = read_as_published(mixed)
        maps = maps + self.dropout(mixed)
        return maps.transpose(1, 2).unflatten(1, (height, width))


def read_as_published(mixed: torch.Tensor) -> torch.Tensor:
    """Reread attention's output in the memory order of the authors' public code.

    Their code transposes (channels, tokens) to (tokens, channels) and then reshapes the memory
    back to (channels, tokens), which mixes channels and positions. Weights trained with it need
    it; a model trained here does not. Source: authors' public code.
    Shape: (batch, channels, tokens) -> the same; entry (i, j) is entry (f % channels,
    f // channels) of the input with f = i * tokens + j.
    """
    batch, channels, tokens = mixed.shape
    return mixed.transpose(1, 2).reshape(batch, channels, tokens)


class PadFirstSwinBlock(SwinTransformerBlock):
    """timm's Swin block in the order of the mm-style Swin: pad, then shift.

    timm shifts, then pads, which gives other numbers wherever the window does not divide the grid.
    The windows are folded into the heads, so that bias and mask stay as small as one image needs
    and a fused attention kernel serves all of them.
    Shape: (batch, height, width, channels) -> the same.
    """

    def _attn(self, hidden_states: torch.Tensor) -> torch.Tensor:
        _, height, width, _ = hidden_states.shape
        window_height, window_width = self.window_size
        shifts, dims = self.shift_size, (1, 2)
        padding = (0, 0, 0, -width % window_width, 0, -height % window_height)
        padded = functional.pad(hidden_states, padding)  # padding is zero, and attended to
        _, padded_height, padded_width, _ = padded.shape
        if any(shifts):
            padded = torch.roll(padded, (-shifts[0], -shifts[1]), dims)
        windows = self._attend(window_partition(padded, self.window_size), len(hidden_states))
        padded = window_reverse(windows, self.window_size, padded_height, padded_width)
        if any(shifts):
            padded = torch.roll(padded, shifts, dims)
        return padded[:, :height, :width]

    def _attend(self, windows: torch.Tensor, batch: int) -> torch.Tensor:
        """Attention inside each window: (batch * windows, height, width, channels) -> the same."""
        attention, heads, count = self.attn, self.attn.num_heads, len(windows) // batch
        qkv = attention.qkv(windows).reshape(batch, count, self.window_area, 3, heads, -1)
        qkv = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)  # (3, batch, windows * heads, area, dim)
        bias = attention._get_rel_pos_bias()  # (1, heads, area, area)
        if self.attn_mask is not None:
            bias = (bias + self.attn_mask[:, None]).flatten(0, 1)[None]
        else:
            bias = bias.repeat(1, count, 1, 1)
        mixed = functional.scaled_dot_product_attention(*qkv, attn_mask=bias.to(qkv.dtype))
        mixed = mixed.unflatten(1, (-1, heads)).transpose(2, 3)
        # (batch, windows, area, heads, dim)
        return attention.proj_drop(attention.proj(mixed.reshape(windows.shape)))


class LocalStage(nn.Module):
    """One stage: merge patches, let the channels attend to each other, then windowed attention.

    Shape: (batch, height, width, channels) of the stage before -> of this stage.
    """

    def __init__(self, config: ClearConfig, stage: int, drop_path_rates: list[float]):
        super().__init__()
        width, grid = config.local_widths[stage], config.local_grids[stage]
        window = config.local_window_size
        self.downsample = PatchMerging(width // 2, width) if stage else nn.Identity()
        self.channel_attention = None
        if config.use_channel_attention:
            self.channel_attention = ChannelAwareSelfAttention(
                grid[0] * grid[1],
                config.channel_attention_dropout,
                config.channel_attention_published_layout,
            )
        self.blocks = nn.ModuleList(
            PadFirstSwinBlock(
                width,
                grid,
                config.local_num_heads[stage],
                window_size=window,
                shift_size=window // 2 if index % 2 else 0,
                always_partition=True,
                mlp_ratio=config.local_mlp_ratio,
                drop_path=rate,
            )
            for index, rate in enumerate(drop_path_rates)
        )
        self.gradient_checkpointing = False

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.downsample(hidden_states)
        if self.channel_attention is not None:
            hidden_states = self.channel_attention(hidden_states)
        for block in self.blocks:
            if self.gradient_checkpointing and self.training:
                hidden_states = checkpoint(block, hidden_states, use_reentrant=False)
            else:
                hidden_states = block(hidden_states)
        return hidden_states


class LocalBranch(nn.Module):
    """The shifted-window branch: mm-style Swin with channel attention before each stage.

    Shape: pixel_values (batch, 3, height, width) -> tokens (batch, tokens, channels), normalised.
    """

    def __init__(self, config: ClearConfig):
        super().__init__()
        self.patch_embed = PatchEmbed(
            (config.image_height, config.image_width),
            config.local_patch_size,
            embed_dim=config.local_embed_dim,
            norm_layer=nn.LayerNorm,
            output_fmt="NHWC",
        )
        total, first, stages = max(sum(config.local_depths) - 1, 1), 0, []
        for stage, depth in enumerate(config.local_depths):  # drop path grows linearly with depth
            rates = [config.local_drop_path_rate * (first + i) / total for i in range(depth)]
            stages.append(LocalStage(config, stage, rates))
            first += depth
        self.layers = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(config.local_widths[-1])

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        hidden_states = self.patch_embed(pixel_values)  # (batch, height, width, channels)
        for stage in self.layers:
            hidden_states = stage(hidden_states)
        return self.norm(hidden_states).flatten(1, 2)  # (batch, tokens, channels)


class GlobalBranch(VisionTransformer):
    """The plain vision transformer of timm, without a final norm: tokens leave un-normalised.

    The patch grid drops the rows and columns that do not fill a patch, as the authors' does.
    Shape: pixel_values (batch, 3, height, width) -> (batch, 1 + patches, channels), class first.
    """

    def __init__(self, config: ClearConfig):
        super().__init__(
            img_size=(config.image_height, config.image_width),
            patch_size=config.global_patch_size,
            embed_dim=config.global_embed_dim,
            depth=config.global_depth,
            num_heads=config.global_num_heads,
            mlp_ratio=config.global_mlp_ratio,
            drop_path_rate=config.global_drop_path_rate,
            num_classes=0,
            global_pool="token",
            final_norm=False,
        )

    @property
    def gradient_checkpointing(self) -> bool:
        """timm's flag under the name that transformers looks for."""
        return self.grad_checkpointing

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.forward_features(pixel_values)


class CrossAttention(nn.Module):
    """One token of a branch attends to itself and to the other branch's tokens; residual.

    Source: CrossViT's fusion as in the authors' public code: no norm, no MLP.
    Shape: token (batch, channels), tokens (batch, tokens, channels) -> (batch, channels).
    """

    def __init__(self, embed_dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.query_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.key_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.value_proj = nn.Linear(embed_dim, embed_dim, bias=False)
        self.out_proj = nn.Linear(embed_dim, embed_dim)

    def forward(self, token: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        sequence = torch.cat([token[:, None], tokens], dim=1)  # (batch, 1 + tokens, channels)
        query, key, value = (
            projection(states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projection, states in (
                (self.query_proj, token[:, None]),
                (self.key_proj, sequence),
                (self.value_proj, sequence),
            )
        )  # (batch, heads, tokens, dim)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return token + self.out_proj(mixed.flatten(1))


class CrossFusion(nn.Module):
    """Both branches exchange what they saw, one token each way; then two norms, side by side.

    The pooled local token never sees the class token: it attends to the global patch tokens.
    Shape: local_tokens (batch, tokens, channels), global_tokens (batch, 1 + patches, channels)
    -> features (batch, 2 * fusion_dim), local half first.
    """

    def __init__(self, config: ClearConfig):
        super().__init__()
        dim, heads = config.fusion_dim, config.fusion_num_heads
        self.local_proj = width_projection(config.local_widths[-1], dim)
        self.global_proj = width_projection(config.global_embed_dim, dim)
        self.local_attention = CrossAttention(dim, heads) if config.use_local_fusion else None
        self.global_attention = CrossAttention(dim, heads) if config.use_global_fusion else None
        self.local_norm = nn.LayerNorm(dim)
        self.global_norm = nn.LayerNorm(dim)

    def forward(self, local_tokens: torch.Tensor, global_tokens: torch.Tensor) -> torch.Tensor:
        local_tokens = self.local_proj(local_tokens)
        global_tokens = self.global_proj(global_tokens)
        local_token, global_token = local_tokens.mean(dim=1), global_tokens[:, 0]
        fused_local, fused_global = local_token, global_token
        if self.local_attention is not None:
            fused_local = self.local_attention(local_token, global_tokens[:, 1:])
        if self.global_attention is not None:
            fused_global = self.global_attention(global_token, local_tokens)
        return torch.cat([self.local_norm(fused_local), self.global_norm(fused_global)], dim=-1)


class SingleBranch(nn.Module):
    """Stands where the fusion stands when one branch is off: its token, projected and normalised.

    Shape: tokens (batch, tokens, channels) -> features (batch, fusion_dim).
    """

    def __init__(self, config: ClearConfig):
        super().__init__()
        self.pool_mean = config.use_local_branch
        width = config.local_widths[-1] if self.pool_mean else config.global_embed_dim
        self.proj = width_projection(width, config.fusion_dim)
        self.norm = nn.LayerNorm(config.fusion_dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        token = tokens.mean(dim=1) if self.pool_mean else tokens[:, 0]
        return self.norm(self.proj(token))


def width_projection(width: int, fusion_dim: int) -> nn.Module:
    """Linear map to the fusion width, or nothing where the branch already has it."""
    return nn.Identity() if width == fusion_dim else nn.Linear(width, fusion_dim)


class ClearBackbone(nn.Module):
    """The paper's f_par without its classifier: both branches and their fusion.

    Shape: pixel_values (batch, 3, height, width), normalised -> features (batch, feature_dim).
    """

    def __init__(self, config: ClearConfig):
        super().__init__()
        self.local_branch = LocalBranch(config) if config.use_local_branch else None
        self.global_branch = GlobalBranch(config) if config.use_global_branch else None
        both = config.use_local_branch and config.use_global_branch
        self.cross_fusion = CrossFusion(config) if both else SingleBranch(config)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        branches = [b for b in (self.local_branch, self.global_branch) if b is not None]
        return self.cross_fusion(*(branch(pixel_values) for branch in branches))


def weighted_attribute_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    positive_ratios: torch.Tensor | None = None,
    weighting: str = "exponential",
) -> torch.Tensor:
    """Weighted binary cross-entropy, summed over the known attributes, averaged over the batch.

    The weight of a label y with positive ratio r is exp(y (1 - r) + (1 - y) r): rare positives
    and rare negatives count more. Source: authors' public code (DeepMAR's weights).

    Args:
        logits: (batch, attributes).
        labels: (batch, attributes) of 1, 0 or -100 (unknown, ignored).
        positive_ratios: (attributes,) in [0, 1]; None: every weight is 1.
        weighting: "exponential", as above, or "balanced": y / 2r + (1 - y) / 2 (1 - r), with r
            kept within [0.05, 0.95], so that positives and negatives count the same.

    >>> labels = torch.tensor([[1, 0, -100]])
    >>> round(weighted_attribute_loss(torch.zeros(1, 3), labels).item(), 4)  # 2 log(2)
    1.3863
    """
    known = labels != UNKNOWN
    targets = torch.where(known, labels, 0).to(logits.dtype)
    losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    if positive_ratios is not None:
        ratios = positive_ratios.to(logits)
        if weighting == "balanced":
            ratios = ratios.clamp(0.05, 0.95)
            losses = losses * (targets / (2 * ratios) + (1 - targets) / (2 * (1 - ratios)))
        else:
            losses = losses * torch.exp(targets * (1 - ratios) + (1 - targets) * ratios)
    return (losses * known).sum() / len(labels)


class ClearPreTrainedModel(PreTrainedModel):
    """Weights, buffers and gradient checkpointing of everything that holds a ClearBackbone."""

    config_class = ClearConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["PadFirstSwinBlock", "ChannelAwareSelfAttention", "Block"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise what a checkpoint does not hold; rebuild what timm never saves."""
        super()._init_weights(module)
        if isinstance(module, WindowAttention):
            init.trunc_normal_(module.relative_position_bias_table, std=0.02)
        elif isinstance(module, GlobalBranch):
            init.trunc_normal_(module.pos_embed, std=0.02)
            init.normal_(module.cls_token, std=1e-6)
        if hasattr(module, "init_non_persistent_buffers"):
            # from_pretrained builds on the meta device: these buffers hold garbage until here
            module.init_non_persistent_buffers()

    def _set_gradient_checkpointing(self, enable: bool = True, **kwargs) -> None:
        for module in self.modules():
            if isinstance(module, LocalStage):
                module.gradient_checkpointing = enable
            elif isinstance(module, GlobalBranch):
                module.set_grad_checkpointing(enable)

    @property
    def is_gradient_checkpointing(self) -> bool:
        """`is_activation_checkpointing` under its older name, as PEFT reads it: no warning."""
        return self.is_activation_checkpointing

    def save_pretrained(self, save_directory, state_dict=None, **kwargs):
        """Save; a part whose values half precision holds exactly is stored in half the space.

        Nothing is lost: loading restores the model's own type with the same values. The language
        model (rounded once, then frozen) is stored so, and every model after `round_to_half`.
        """
        state_dict = dict(self.state_dict() if state_dict is None else state_dict)
        for part in {name.split(".")[0] for name in state_dict}:
            tensors = {n: t for n, t in state_dict.items() if n.split(".")[0] == part}
            halves = {n: t.half() for n, t in tensors.items() if t.dtype == torch.float32}
            if all(torch.equal(half.float(), tensors[n]) for n, half in halves.items()):
                state_dict.update(halves)
        return super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)

    @torch.no_grad()
    def round_to_half(self):
        """Round every weight to the nearest half-precision value, still held in its own type."""
        for parameter in self.parameters():
            parameter.copy_(parameter.half())
        return self

    def train(self, mode: bool = True):
        """Set training mode; a part that has nothing to learn stays in evaluation mode.

        Frozen is not evaluation: drop-out in a frozen backbone would blur the features that the
        retrieval adapters learn from.
        """
        super().train(mode)
        for part in self.children() if mode else ():
            parameters = list(part.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                part.eval()
        return self


class ClearForAttributeRecognition(ClearPreTrainedModel):
    """Says which attributes a person crop shows: the backbone and a linear classifier.

    Source: arXiv 2403.06119, f_par and f_par^cls. Loads any CLEAR checkpoint; the language model
    that retrieval needs is left out.
    """

    _keys_to_ignore_on_load_unexpected = [r"^language_model\."]

    def __init__(self, config: ClearConfig):
        super().__init__(config)
        config.check()  # fields may have been set since the configuration was made
        self.backbone = ClearBackbone(config)
        self.classifier = nn.Linear(config.feature_dim, config.num_labels)
        self.post_init()

    def extract_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The backbone's output, before classifier and adapters.

        Shape: pixel_values (batch, 3, height, width), normalised -> (batch, feature_dim).
        Raises: ValueError when the shape is not the configured one.
        """
        expected = (3, self.config.image_height, self.config.image_width)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise ValueError(
                f"`pixel_values` must be (batch, {', '.join(map(str, expected))}), got "
                f"{tuple(pixel_values.shape)}. Resize with ClearProcessor."
            )
        return self.backbone(pixel_values.to(self.dtype))

    def recognition_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """`weighted_attribute_loss` with the positive ratios of the configuration."""
        if labels.shape != logits.shape:
            raise ValueError(
                f"`labels` must be (batch, attributes) = {tuple(logits.shape)}, got "
                f"{tuple(labels.shape)}."
            )
        ratios = self.config.attribute_positive_ratios
        ratios = None if ratios is None else torch.tensor(ratios)
        weighting = self.config.attribute_weighting
        return weighted_attribute_loss(logits.float(), labels, ratios, weighting)

    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs
    ) -> ClearOutput:
        """Recognise attributes.

        Args:
            pixel_values: (batch, 3, image_height, image_width), normalised.
            labels: (batch, attributes) of 1, 0 or -100 (unknown).
        Returns: ClearOutput with logits and features, and loss when labels are given.
        """
        features = self.extract_features(pixel_values)
        logits = self.classifier(features)
        loss = None if labels is None else self.recognition_loss(logits, labels)
        return ClearOutput(loss=loss, logits=logits, features=features)


class ClearModel(ClearForAttributeRecognition):
    """The whole of CLEAR: recognises; with a retrieval adapter, finds people by attributes.

    Source: arXiv 2403.06119. The three slots are the paper's f_ret: `visual_projection` takes the
    backbone's feature to the joint space, `text_projection` the language model's embedding of the
    pseudo-description (soft query), `attribute_projection` the attribute vector (hard query). They
    are empty in the base and filled by a PEFT adapter (`peft_clear.py`). The language model is
    always frozen.
    """

    _keys_to_ignore_on_load_unexpected = None

    def __init__(self, config: ClearConfig):
        super().__init__(config)
        self.language_model = build_language_model(config)
        self.visual_projection = nn.Identity()
        self.text_projection = nn.Identity()
        self.attribute_projection = nn.Identity()
        self.post_init()

    def train(self, mode: bool = True):
        """As in the parent; from_pretrained unfreezes what a constructor froze, so freeze here."""
        if self.language_model is not None:
            self.language_model.requires_grad_(False)
        return super().train(mode)

    @classmethod
    def with_language_model(cls, config: ClearConfig, source: str, revision: str | None = None):
        """A new model whose language model is the pre-trained `source`, frozen.

        Its weights are rounded once to half precision, so that a checkpoint stores them exactly
        in half the space. The rest is initialised at random. A decoder is pooled at its last token,
        whatever `config.text_pooling` was: no other token has read the whole sentence.

        Args:
            source: folder or Hub id of any encoder or decoder of text that AutoModel loads.
            revision: the Hub revision to pin.
        Raises: ValueError for an encoder-decoder.
        """
        language_model = AutoModel.from_pretrained(source, revision=revision, dtype=torch.float32)
        if language_model.config.is_encoder_decoder:
            raise ValueError(
                "`source` must be an encoder or a decoder of text, got the encoder-decoder "
                f"{language_model.config.model_type!r}."
            )
        if is_decoder(language_model.config.model_type):
            config.text_pooling = "last"
        config.text_config = language_model.config
        config.text_config._name_or_path = ""  # would publish a local path
        model = cls(config)
        weights = {name: t.half().float() for name, t in language_model.state_dict().items()}
        known = model.language_model.state_dict().keys()  # a pooler is left out: nothing uses it
        model.language_model.load_state_dict({name: weights[name] for name in known})
        return model

    @classmethod
    def from_pretrained_backbones(
        cls,
        config: ClearConfig,
        local_weights: str | PathLike | None = None,
        global_weights: str | PathLike | None = None,
        text_model: str | None = None,
        output_loading_info: bool = False,
    ):
        """A new model whose branches and language model start from pre-trained weights.

        What no other model has starts at random: channel attention, fusion and classifier.

        Args:
            config: names the weights: `local_architecture` and `global_architecture` models of
                timm; `text_source` and `text_revision` a language model, or None.
            local_weights, global_weights: safetensors file of the timm model instead of a download.
            text_model: folder or Hub id to read instead of `config.text_source`.
            output_loading_info: return (model, {branch: {"loaded", "resized", "new", "left_out"}}).
        Raises: ValueError, listing the tensors that do not fit.
        """
        source, revision = text_model or config.text_source, config.text_revision
        model = cls.with_language_model(config, source, revision) if source else cls(config)
        info = load_pretrained_backbones(model.backbone, config, local_weights, global_weights)
        return (model, info) if output_loading_info else model

    @property
    def is_retrieval_ready(self) -> bool:
        """Whether an active retrieval adapter fills the slots."""
        return getattr(self.visual_projection, "is_filled", False)

    def encode_text(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Embed pseudo-descriptions with the frozen language model.

        Shape: (queries, tokens) -> (queries, hidden_size), unit length.
        """
        if self.language_model is None:
            raise ValueError(
                "`input_ids` need a language model, and `config.text_config` is None. Load a "
                "checkpoint that carries one, or ask with `query_attributes` alone."
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        # Padding to the right, whatever the tokenizer's side: positions are counted from the left.
        order = attention_mask.argsort(dim=-1, descending=True, stable=True)
        input_ids, attention_mask = input_ids.gather(1, order), attention_mask.gather(1, order)
        with torch.no_grad():
            states = self.language_model(input_ids=input_ids, attention_mask=attention_mask)[0]
        mask = attention_mask[..., None].to(states.dtype)  # (queries, tokens, 1)
        if self.config.text_pooling == "last":
            last = attention_mask.sum(-1) - 1
            pooled = states[torch.arange(len(states), device=states.device), last]
        else:
            pooled = (states * mask).sum(1) / mask.sum(1)
        return functional.normalize(pooled, dim=-1)

    def get_image_features(
        self,
        pixel_values: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        adapter_names: list[str] | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """Image embeddings of the joint space.

        Args:
            pixel_values: (batch, 3, image_height, image_width), normalised; or
            features: (batch, feature_dim) of `extract_features`, computed before.
            adapter_names: the adapter of each image; None: the active one.
        Returns: (batch, embed_dim), unit length.
        """
        self._require_adapter()
        if features is None:
            features = self.extract_features(pixel_values)
        return functional.normalize(self.visual_projection(features, adapter_names), dim=-1)

    def get_query_features(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        query_attributes: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        adapter_names: list[str] | None = None,
        **kwargs,
    ) -> torch.Tensor:
        """Query embeddings of the joint space: soft and hard halves side by side.

        Args:
            input_ids, attention_mask: (queries, tokens) of the pseudo-descriptions; or
            text_embeds: (queries, hidden_size) of `encode_text`, computed before.
            query_attributes: (queries, attributes) of 1 present, 0 absent, -100 unsaid.
            adapter_names: the adapter of each query; None: the active one.
        Returns: (queries, embed_dim), unit length; a half that the adapter does not have is empty.
        Raises: ValueError when a half that the adapter has is not given.
        """
        self._require_adapter()
        slots = {"input_ids": self.text_projection, "query_attributes": self.attribute_projection}
        needed = [name for name, slot in slots.items() if slot.reads_input(adapter_names)]
        given = {}
        if text_embeds is not None:
            given["input_ids"] = text_embeds
        elif input_ids is not None and "input_ids" in needed:
            given["input_ids"] = self.encode_text(input_ids, attention_mask)
        if query_attributes is not None:
            signed = torch.where(query_attributes == UNKNOWN, 0, 2 * query_attributes - 1)
            given["query_attributes"] = signed
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(
                f"{' and '.join(f'`{name}`' for name in missing)} must be given: the retrieval "
                "adapter reads them, got None. Set `query_kind` of ClearProcessor to the adapter's."
            )
        halves = [slots[n](half.to(self.dtype), adapter_names) for n, half in given.items()]
        return functional.normalize(torch.cat(halves, dim=-1), dim=-1)

    def _require_adapter(self) -> None:
        if not self.is_retrieval_ready:
            raise ValueError(
                "Retrieval needs an active adapter, got none: call "
                '`model.load_adapter("adapters/peta")` (a folder or a Hub id) first.'
            )

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        query_attributes: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        adapter_names: list[str] | None = None,
        **kwargs,
    ) -> ClearOutput:
        """Recognise attributes and, when an adapter is active, embed images and queries.

        Args: those of `ClearForAttributeRecognition.forward`, `get_image_features` and
            `get_query_features`; each part runs when its inputs are given.
        Returns: ClearOutput; `loss` (recognition) when labels are given.
        """
        loss = logits = image_embeds = query_embeds = None
        if features is None and pixel_values is not None:
            features = self.extract_features(pixel_values)
        if features is not None:
            logits = self.classifier(features)
            if self.is_retrieval_ready:
                image_embeds = self.get_image_features(None, features, adapter_names)
        if labels is not None:
            loss = self.recognition_loss(logits, labels)
        if any(given is not None for given in (input_ids, query_attributes, text_embeds)):
            query_embeds = self.get_query_features(
                input_ids, attention_mask, query_attributes, text_embeds, adapter_names
            )
        return ClearOutput(
            loss=loss,
            logits=logits,
            features=features,
            image_embeds=image_embeds,
            query_embeds=query_embeds,
        )


def is_decoder(model_type: str) -> bool:
    """Whether a text model reads from left to right: it predicts next words, and no masked ones.

    >>> is_decoder("gpt2"), is_decoder("bert")
    (True, False)
    """
    masked = MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and model_type not in masked


def build_language_model(config: ClearConfig) -> PreTrainedModel | None:
    """The language model of `config.text_config`, without weights and without an unused pooler."""
    if config.text_config is None:
        return None
    language_model = AutoModel.from_config(config.text_config)
    if getattr(language_model, "pooler", None) is not None:
        language_model.pooler = None
    return language_model


ClearForAttributeRecognition.register_for_auto_class("AutoModelForImageClassification")
ClearModel.register_for_auto_class("AutoModel")

__all__ = [
    "ChannelAwareSelfAttention",
    "ClearForAttributeRecognition",
    "ClearModel",
    "ClearOutput",
    "ClearPreTrainedModel",
]
