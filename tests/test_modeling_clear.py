"""The whole model: shapes, switches, training, number types, what is frozen."""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModel, BertConfig, BertModel, GPT2Config, T5Config

from clear_par.modeling_clear import (
    ChannelAwareSelfAttention,
    ClearForAttributeRecognition,
    ClearModel,
    PadFirstSwinBlock,
)

IGNORED = -100
LABELS = torch.tensor([[1, 0, IGNORED, 1, 0, 0], [0, 1, 1, IGNORED, 0, 1], [1] * 6])


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def build(kind, config, seed: int = 0):
    torch.manual_seed(seed)
    return kind(config)


# ---- output ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ClearModel, ClearForAttributeRecognition])
@torch.no_grad()
def test_a_batch_is_its_rows_and_the_shapes_are_those_promised(micro_config, images, kind):
    model = build(kind, micro_config).eval()
    output = model(pixel_values=images)
    assert list(output) == ["logits", "features"]
    assert output.logits.shape == (3, 6)
    assert output.features.shape == (3, micro_config.feature_dim) == (3, 32)
    rows = torch.cat([model(pixel_values=image[None]).logits for image in images])
    torch.testing.assert_close(output.logits, rows)
    assert torch.equal(model(pixel_values=images).logits, output.logits)
    assert not torch.allclose(output.logits[0], output.logits[1])


def test_the_loss_takes_the_ratios_of_the_configuration(make_micro_config, images):
    losses = []
    for ratios in (None, [0.0] * 6, [0.9] * 6):
        model = build(ClearModel, make_micro_config(attribute_positive_ratios=ratios)).eval()
        output = model(pixel_values=images, labels=LABELS)
        assert list(output) == ["loss", "logits", "features"]
        losses.append(output.loss.item())
    known = (LABELS != IGNORED).float()
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(
        output.logits, LABELS.clamp(min=0).float(), known, reduction="sum"
    )
    assert losses[0] == pytest.approx(cross_entropy.item() / 3, rel=1e-5)
    assert len(set(losses)) == 3


def test_cached_features_give_the_same_as_images(micro_model, images):
    with torch.no_grad():
        whole = micro_model(pixel_values=images, labels=LABELS)
        cached = micro_model(features=whole.features, labels=LABELS)
    assert torch.equal(cached.logits, whole.logits)
    assert torch.equal(cached.loss, whole.loss)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 3, 32, 16), (1, 1, 32, 32), (1, 3, 64, 64)])
def test_images_of_another_size_are_refused(micro_model, shape):
    with pytest.raises(ValueError, match=r"`pixel_values` must be \(batch, 3, 32, 32\), got \("):
        micro_model(pixel_values=torch.zeros(shape))


def test_labels_of_another_shape_are_refused(micro_model, images):
    with pytest.raises(ValueError, match=r"`labels` must be \(batch, attributes\) = \(3, 6\), got"):
        micro_model(pixel_values=images, labels=LABELS[:, :5])


# ---- ablations ------------------------------------------------------------------------------

VARIANTS = {
    "whole": {},
    "no channel attention": {"use_channel_attention": False},
    "published layout": {"channel_attention_published_layout": True},
    "no local fusion": {"use_local_fusion": False},
    "no global fusion": {"use_global_fusion": False},
    "no fusion": {"use_local_fusion": False, "use_global_fusion": False},
    "local alone": {"use_global_branch": False},
    "global alone": {"use_local_branch": False},
    "other width": {"fusion_embed_dim": 24},
    "one branch wider": {"fusion_embed_dim": None, "global_embed_dim": 32},
    "local alone, other width": {"use_global_branch": False, "fusion_embed_dim": 24},
    "global alone, other width": {"use_local_branch": False, "fusion_embed_dim": 24},
}
WIDTHS = {"other width": 48, "one branch wider": 64, "local alone": 16, "global alone": 16} | {
    f"{branch} alone, other width": 24 for branch in ("local", "global")
}


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_with_every_parameter(make_micro_config, images, variant):
    model = build(ClearModel, make_micro_config(**VARIANTS[variant])).train()
    output = model(pixel_values=images, labels=LABELS)
    assert output.features.shape == (3, WIDTHS.get(variant, 32))
    assert model.config.feature_dim == output.features.shape[1]
    output.loss.backward()
    parameters = trainable(model)
    assert not any(name.startswith("language_model.") for name in parameters)
    for name, parameter in parameters.items():
        assert parameter.grad is not None, f"no gradient for {name}"
        assert parameter.grad.isfinite().all(), name


def names(make_micro_config, variant: str) -> set[str]:
    model = ClearForAttributeRecognition(make_micro_config(**VARIANTS[variant]))
    return {name.removeprefix("backbone.") for name in model.state_dict()}


@pytest.mark.parametrize(
    ("variant", "part"),
    [
        ("no channel attention", ".channel_attention."),
        ("no local fusion", "cross_fusion.local_attention."),
        ("no global fusion", "cross_fusion.global_attention."),
    ],
)
def test_a_switch_takes_away_its_part_and_nothing_else(make_micro_config, variant, part):
    whole, rest = names(make_micro_config, "whole"), names(make_micro_config, variant)
    assert whole - rest == {name for name in whole if part in name} != set()
    assert rest < whole


@pytest.mark.parametrize("branch", ["local", "global"])
def test_one_branch_alone_keeps_itself_and_one_norm(make_micro_config, branch):
    whole = names(make_micro_config, "whole")
    own = {name for name in whole if name.startswith((f"{branch}_branch.", "classifier."))}
    assert len(own) > 20
    norm = {f"cross_fusion.norm.{kind}" for kind in ("weight", "bias")}
    assert names(make_micro_config, f"{branch} alone") == own | norm
    projection = {f"cross_fusion.proj.{kind}" for kind in ("weight", "bias")}
    assert names(make_micro_config, f"{branch} alone, other width") == own | norm | projection


def test_only_a_branch_of_another_width_is_projected(make_micro_config):
    whole = names(make_micro_config, "whole")
    both = {
        f"cross_fusion.{side}_proj.{k}" for side in ("local", "global") for k in ("weight", "bias")
    }
    assert names(make_micro_config, "other width") - whole == both
    local = {name for name in both if "local" in name}
    assert names(make_micro_config, "one branch wider") - whole == local


def test_the_published_layout_has_the_same_weights_and_another_output(make_micro_config, images):
    clean, published = (
        build(ClearModel, make_micro_config(channel_attention_published_layout=flag)).eval()
        for flag in (False, True)
    )
    published.load_state_dict(clean.state_dict())
    assert not torch.allclose(clean(images).logits, published(images).logits)


# ---- training -------------------------------------------------------------------------------


def gradients(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)  # the same drop-out and the same dropped paths each time
    model.zero_grad()
    model(pixel_values=images, labels=LABELS).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in trainable(model).items()}


@pytest.mark.parametrize("variant", ["whole", "local alone", "global alone"])
def test_gradient_checkpointing_changes_no_gradient(make_micro_config, images, variant):
    rates = {"local_drop_path_rate": 0.3, "global_drop_path_rate": 0.3}
    model = build(ClearModel, make_micro_config(**VARIANTS[variant], **rates)).train()
    expected = gradients(model, images)
    assert not model.is_gradient_checkpointing
    model.activation_checkpointing_enable()
    assert model.is_gradient_checkpointing
    assert model.is_activation_checkpointing
    for name, gradient in gradients(model, images).items():
        assert torch.equal(gradient, expected[name]), name
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing


def test_gradient_checkpointing_computes_each_block_twice(micro_config, images):
    model = build(ClearModel, micro_config).train()
    calls = []
    backbone = model.backbone
    blocks = [
        *backbone.global_branch.blocks,
        *(b for s in backbone.local_branch.layers for b in s.blocks),
    ]
    for block in blocks:
        block.norm1.register_forward_pre_hook(lambda *_: calls.append(1))
    gradients(model, images)
    assert len(calls) == len(blocks)
    model.activation_checkpointing_enable()
    gradients(model, images)
    assert len(calls) == 3 * len(blocks)


def test_a_few_steps_learn_the_batch(micro_config, images):
    model = build(ClearModel, micro_config).train()
    optimiser = torch.optim.AdamW(trainable(model).values(), lr=3e-3)
    losses = []
    for _ in range(80):
        optimiser.zero_grad()
        loss = model(pixel_values=images, labels=LABELS).loss
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# ---- what is frozen -------------------------------------------------------------------------


def test_the_language_model_is_frozen_and_in_evaluation_mode(micro_model):
    for model in (micro_model, micro_model.train()):
        assert not any(p.requires_grad for p in model.language_model.parameters())
        assert not any(module.training for module in model.language_model.modules())
    assert all(module.training for module in micro_model.backbone.modules())
    micro_model.language_model.requires_grad_(True)
    micro_model.train()
    assert not any(p.requires_grad for p in micro_model.language_model.parameters())


def test_a_frozen_backbone_does_not_drop_out(micro_model, images):
    with torch.no_grad():
        expected = micro_model(images).features
        micro_model.train()
        assert not torch.equal(micro_model(images).features, expected)
        micro_model.backbone.requires_grad_(False)
        micro_model.train()
        assert torch.equal(micro_model(images).features, expected)
    assert micro_model.classifier.training
    assert not micro_model.backbone.training
    micro_model.backbone.requires_grad_(True)
    assert micro_model.train().backbone.training
    assert not micro_model.eval().backbone.training


# ---- number types, compilation, copies ------------------------------------------------------


def test_half_width_numbers_stay_near(micro_model, images):
    with torch.no_grad():
        expected = micro_model(images).logits
        with torch.autocast("cpu", torch.bfloat16):
            automatic = micro_model(images).logits
        wide = copy.deepcopy(micro_model).to(torch.bfloat16)(images)  # the images stay float32
    assert wide.logits.dtype == automatic.dtype == torch.bfloat16
    for logits in (wide.logits, automatic):
        torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.03)


def test_the_loss_is_computed_in_single_precision(micro_model, images):
    with torch.autocast("cpu", torch.bfloat16):
        output = micro_model(images, labels=LABELS)
    assert output.loss.dtype == torch.float32
    output.loss.backward()
    assert all(p.grad.dtype == torch.float32 for p in trainable(micro_model).values())


@pytest.mark.parametrize("variant", ["whole", "local alone", "global alone"])
def test_the_model_compiles_as_one_graph(make_micro_config, images, variant):
    model = build(ClearModel, make_micro_config(local_window_size=5, **VARIANTS[variant])).eval()
    with torch.no_grad():
        expected = model(pixel_values=images, labels=LABELS)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        got = compiled(pixel_values=images, labels=LABELS)
    torch.testing.assert_close(got.logits, expected.logits)
    torch.testing.assert_close(got.loss, expected.loss)


def test_a_copy_is_equal_and_apart(micro_model, images):
    again = copy.deepcopy(micro_model)
    with torch.no_grad():
        expected = micro_model(images).logits
        assert torch.equal(again(images).logits, expected)
        again.classifier.bias.add_(1)
        assert torch.equal(micro_model(images).logits, expected)


def test_parts_that_must_stay_on_one_device_are_named_as_they_are_called(micro_model):
    kinds = {type(module).__name__ for module in micro_model.modules()}
    assert set(micro_model._no_split_modules) <= kinds
    assert {PadFirstSwinBlock.__name__, ChannelAwareSelfAttention.__name__} <= kinds


# ---- language model -------------------------------------------------------------------------

TOKENS = torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
BERT_SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def test_sentences_are_the_mean_of_their_tokens(micro_model):
    embeds = micro_model.encode_text(TOKENS, MASK)
    states = micro_model.language_model(input_ids=TOKENS, attention_mask=MASK)[0]
    for embed, rows in zip(embeds, (states[0], states[1, :3]), strict=True):
        mean = rows.mean(0)
        torch.testing.assert_close(embed, mean / mean.norm())
    assert not embeds.requires_grad
    torch.testing.assert_close(embeds[0], micro_model.encode_text(TOKENS)[0])


def test_sentences_are_the_last_token_wherever_the_padding_is(make_micro_config):
    model = build(ClearModel, make_micro_config(text_pooling="last")).eval()
    states = model.language_model(input_ids=TOKENS, attention_mask=MASK)[0]
    right = model.encode_text(TOKENS, MASK)
    for embed, row in zip(right, (states[0, 3], states[1, 2]), strict=True):
        torch.testing.assert_close(embed, row / row.norm())
    left = torch.tensor([[0, 2, 8, 3]]), torch.tensor([[0, 1, 1, 1]])
    torch.testing.assert_close(model.encode_text(*left)[0], right[1])


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (GPT2Config(vocab_size=50, n_positions=32, n_embd=16, n_layer=2, n_head=2), "last"),
        (BertConfig(vocab_size=50, hidden_size=16, **BERT_SIZES), "mean"),
    ],
)
def test_any_language_model_embeds_a_sentence_whatever_stands_beside_it(
    make_micro_config, tmp_path, config, pooling
):
    torch.manual_seed(0)
    source = AutoModel.from_config(config).eval()
    source.save_pretrained(tmp_path)
    model = ClearModel.with_language_model(make_micro_config(text_config=None), str(tmp_path))
    model.eval()
    assert model.config.text_pooling == pooling
    assert model.config.text_config.model_type == config.model_type
    for parameter in source.parameters():  # as the model keeps them
        parameter.data = parameter.data.half().float()
    short = torch.tensor([[7, 9, 3]])
    with torch.no_grad():
        states = source(input_ids=short)[0][0]
    expected = states[-1] if pooling == "last" else states.mean(0)
    sides = [([7, 9, 3, 0, 0], [1, 1, 1, 0, 0]), ([0, 0, 7, 9, 3], [0, 0, 1, 1, 1])]
    for tokens, mask in sides:
        batch = torch.tensor([tokens, [4, 8, 15, 16, 23]]), torch.tensor([mask, [1] * 5])
        embeds = model.encode_text(*batch)
        torch.testing.assert_close(embeds[0], expected / expected.norm())
        torch.testing.assert_close(embeds[1:], model.encode_text(batch[0][1:]))


def test_an_encoder_decoder_is_no_language_model_for_queries(micro_config, tmp_path):
    sizes = {"vocab_size": 20, "d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2}
    AutoModel.from_config(T5Config(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"`source` must be an encoder or a decoder .* got .* 't5'"
    ):
        ClearModel.with_language_model(micro_config, str(tmp_path))


def test_text_without_a_language_model_says_what_to_do(make_micro_config):
    model = ClearModel(make_micro_config(text_config=None))
    assert model.language_model is None
    with pytest.raises(
        ValueError, match=r"`input_ids` need a language model, .* Load a checkpoint"
    ):
        model.encode_text(TOKENS)


def test_a_pretrained_language_model_is_taken_over_rounded_once(make_micro_config, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    source = build(BertModel, BertConfig(vocab_size=40, intermediate_size=32, **sizes))
    source.save_pretrained(tmp_path)
    model = ClearModel.with_language_model(make_micro_config(text_config=None), tmp_path)
    weights = source.state_dict()
    for name, weight in model.language_model.state_dict().items():
        assert torch.equal(weight, weights[name].half().float()), name
    assert {name.split(".")[0] for name in weights} - {"pooler"} == {"embeddings", "encoder"}
    assert model.language_model.pooler is None
    assert str(tmp_path) not in model.config.to_json_string()
    assert model.config.text_config.vocab_size == 40
