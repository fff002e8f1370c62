"""Each part of the network against formulas written out, or against another library."""

import itertools
import math

import pytest
import torch
from timm.models.swin_transformer import SwinTransformerBlock
from torch import nn
from torch.nn import functional

from clear_par.modeling_clear import (
    ChannelAwareSelfAttention,
    CrossAttention,
    CrossFusion,
    GlobalBranch,
    LocalBranch,
    PadFirstSwinBlock,
    read_as_published,
    weighted_attribute_loss,
)

IGNORED = -100


def randomise(module: nn.Module) -> nn.Module:
    """Weights large enough that every one of them shows, in double precision."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return module.double().eval()


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def assert_equal(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


# ---- channel attention ----------------------------------------------------------------------


@torch.no_grad()
def channel_attention_of(module: ChannelAwareSelfAttention, maps: torch.Tensor) -> torch.Tensor:
    """softmax(Q K^T / sqrt(N)) V of one image, (channels, tokens) -> the same, in loops."""
    channels, tokens = maps.shape
    query, key, value = (
        torch.stack([layer.weight @ row + layer.bias for row in maps])
        for layer in (module.query, module.key, module.value)
    )
    mixed = torch.zeros_like(maps)
    for i in range(channels):
        scores = [float(query[i] @ key[j]) / math.sqrt(tokens) for j in range(channels)]
        total = sum(math.exp(score - max(scores)) for score in scores)
        for j in range(channels):
            mixed[i] += math.exp(scores[j] - max(scores)) / total * value[j]
    return mixed


@pytest.mark.parametrize("published", [False, True])
def test_channel_attention_is_its_formula(published):
    module = randomise(ChannelAwareSelfAttention(6, published_layout=published))
    inputs = random(2, 2, 3, 5)  # (batch, height, width, channels)
    outputs = module(inputs).detach()
    for image, output in zip(inputs, outputs, strict=True):
        maps = image.reshape(6, 5).T
        mixed = channel_attention_of(module, maps)
        if published:  # entry f of the output's memory is position f // 5 of channel f % 5
            mixed = torch.stack([mixed[f % 5, f // 5] for f in range(30)]).reshape(5, 6)
        assert_equal(output, (maps + mixed).T.reshape(2, 3, 5))


def test_the_published_layout_is_the_index_formula_and_no_transpose():
    mixed = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    read = read_as_published(mixed)
    for b, i, j in itertools.product(range(2), range(3), range(4)):
        f = i * 4 + j
        assert read[b, i, j] == mixed[b, f % 3, f // 3]
    assert not torch.equal(read, mixed)


@pytest.mark.parametrize("published", [False, True])
def test_channels_stay_channels_only_in_the_clean_form(published):
    """Of maps far apart, each attends to itself alone: the output is twice the input."""
    module = ChannelAwareSelfAttention(9, published_layout=published).double().eval()
    for layer in (module.query, module.key, module.value):
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    maps = 100.0 * torch.eye(9, dtype=torch.double)[:4]  # (channels, tokens)
    output = module(maps.T.reshape(1, 3, 3, 4)).detach()[0].reshape(9, 4).T
    assert torch.allclose(output, 2 * maps) is not published


def test_channel_attention_drops_only_what_it_adds():
    module = ChannelAwareSelfAttention(4, dropout=0.999).train()
    inputs = torch.randn(1, 2, 2, 3)
    torch.manual_seed(0)
    assert torch.equal(module(inputs), inputs)


# ---- local branch ---------------------------------------------------------------------------


def window_attention(attention: nn.Module, window: torch.Tensor, wrapped) -> torch.Tensor:
    """One window of (size, size, channels): every head, every pair of tokens, in loops.

    wrapped: for each row and column, whether it came round from the other side of the image.
    """
    size, _, channels = window.shape
    places = list(itertools.product(range(size), range(size)))
    qkv = [attention.qkv.weight @ window[place] + attention.qkv.bias for place in places]
    width = channels // attention.num_heads
    heads = []
    for head in range(attention.num_heads):
        query, key, value = (
            [row[part * channels + head * width :][:width] for row in qkv] for part in range(3)
        )
        rows = []
        for i, (y, x) in enumerate(places):
            scores = []
            for j, (v, u) in enumerate(places):
                entry = (y - v + size - 1) * (2 * size - 1) + x - u + size - 1
                score = query[i] @ key[j] / math.sqrt(width)
                score = score + attention.relative_position_bias_table[entry, head]
                apart = wrapped[0][y] != wrapped[0][v] or wrapped[1][x] != wrapped[1][u]
                scores.append(score - 100 * apart)
            weights = torch.stack(scores).softmax(0)
            rows.append(sum(w * row for w, row in zip(weights, value, strict=True)))
        heads.append(torch.stack(rows))
    mixed = torch.cat(heads, dim=-1) @ attention.proj.weight.T + attention.proj.bias
    return mixed.reshape(size, size, channels)


def swin_block(block: nn.Module, image: torch.Tensor, size: int, shift: int) -> torch.Tensor:
    """One block on (height, width, channels): norm, pad, shift, windows, back, MLP."""
    height, width, channels = image.shape
    padded_height, padded_width = (math.ceil(side / size) * size for side in (height, width))
    padded = torch.zeros(padded_height, padded_width, channels, dtype=image.dtype)
    padded[:height, :width] = block.norm1(image)
    rows = [(y + shift) % padded_height for y in range(padded_height)]
    columns = [(x + shift) % padded_width for x in range(padded_width)]
    result = torch.zeros_like(padded)
    for top, left in itertools.product(range(0, padded_height, size), range(0, padded_width, size)):
        ys, xs = rows[top : top + size], columns[left : left + size]
        wrapped = [y < shift for y in ys], [x < shift for x in xs]
        window = window_attention(block.attn, padded[ys][:, xs], wrapped)
        for i, j in itertools.product(range(size), range(size)):
            result[ys[i], xs[j]] = window[i, j]
    image = image + result[:height, :width]
    return image + block.mlp.fc2(functional.gelu(block.mlp.fc1(block.norm2(image))))


GRIDS = [(8, 4), (5, 6), (4, 4), (3, 2), (9, 3)]


def make_block(kind, grid: tuple[int, int], shift: int):
    sizes = {"window_size": 4, "shift_size": shift, "always_partition": True}
    return randomise(kind(4, grid, 2, **sizes))


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("grid", GRIDS)
def test_a_swin_block_pads_first_and_then_shifts(grid, shift):
    block = make_block(PadFirstSwinBlock, grid, shift)
    images = random(2, *grid, 4)
    with torch.no_grad():
        expected = torch.stack([swin_block(block, image, 4, shift) for image in images])
        assert_equal(block(images), expected)


def test_the_block_of_timm_is_another_where_the_window_does_not_divide():
    for grid, same in (((8, 4), True), ((5, 6), False)):
        ours, theirs = (make_block(k, grid, 2) for k in (PadFirstSwinBlock, SwinTransformerBlock))
        images = random(1, *grid, 4)
        assert torch.allclose(ours(images), theirs(images)) is same


def test_every_second_block_shifts_and_drop_path_grows(make_micro_config):
    config = make_micro_config(local_window_size=5, local_drop_path_rate=0.3)
    blocks = [block for stage in LocalBranch(config).layers for block in stage.blocks]
    assert [block.shift_size for block in blocks] == [(0, 0), (2, 2)] * 2
    assert {block.window_size for block in blocks} == {(5, 5)}
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_the_local_branch_merges_patches_before_it_mixes_channels(make_micro_config):
    config = make_micro_config(image_height=48)
    branch = randomise(LocalBranch(config))
    image = random(1, 3, 48, 32)
    seen = []
    for stage in branch.layers:
        stage.channel_attention.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape))
    tokens = branch(image)
    assert seen == [(1, 12, 8, 8), (1, 6, 4, 16)]
    assert tokens.shape == (1, 24, 16)
    normalised = (tokens - branch.norm.bias) / branch.norm.weight
    assert_equal(normalised.mean(-1), torch.zeros(1, 24, dtype=torch.double))


# ---- global branch --------------------------------------------------------------------------


def torch_encoder_layer(block: nn.Module) -> nn.TransformerEncoderLayer:
    """PyTorch's own layer with the weights of timm's block."""
    width, hidden = block.attn.qkv.in_features, block.mlp.fc1.out_features
    sizes = {"dim_feedforward": hidden, "dropout": 0.0, "activation": "gelu"}
    layer = nn.TransformerEncoderLayer(
        width, block.attn.num_heads, **sizes, batch_first=True, norm_first=True, layer_norm_eps=1e-6
    ).double()
    pairs = {
        "self_attn.in_proj_": block.attn.qkv,
        "self_attn.out_proj.": block.attn.proj,
        "linear1.": block.mlp.fc1,
        "linear2.": block.mlp.fc2,
        "norm1.": block.norm1,
        "norm2.": block.norm2,
    }
    weights = {p + n: t for p, m in pairs.items() for n, t in m.state_dict().items()}
    layer.load_state_dict(weights)
    return layer.train()  # the fast path of evaluation mode has other numerics


def test_the_global_branch_is_a_plain_transformer_without_a_last_norm(make_micro_config):
    branch = randomise(GlobalBranch(make_micro_config(global_patch_size=7)))
    images = random(2, 3, 32, 32)
    patches = images[:, :, :28, :28].unfold(2, 7, 7).unfold(3, 7, 7)  # (2, 3, 4, 4, 7, 7)
    patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(2, 16, -1)
    conv = branch.patch_embed.proj
    tokens = patches @ conv.weight.flatten(1).T + conv.bias
    tokens = torch.cat([branch.cls_token.expand(2, -1, -1), tokens], 1) + branch.pos_embed
    for block in branch.blocks:
        tokens = torch_encoder_layer(block)(tokens)
    assert_equal(branch(images), tokens)


# ---- fusion ---------------------------------------------------------------------------------


def test_cross_attention_is_that_of_torch():
    module = randomise(CrossAttention(8, 2))
    reference = nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        parts = [module.query_proj, module.key_proj, module.value_proj]
        reference.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        reference.in_proj_bias.zero_()
        reference.out_proj.load_state_dict(module.out_proj.state_dict())
    token, tokens = random(3, 8), random(3, 5, 8) + 1
    sequence = torch.cat([token[:, None], tokens], 1)
    expected = token + reference(token[:, None], sequence, sequence)[0][:, 0]
    assert_equal(module(token, tokens), expected)


@pytest.fixture
def fusion(make_micro_config):
    """(fusion, local tokens, global tokens); both halves of its output are 16 wide."""
    return randomise(CrossFusion(make_micro_config())), random(2, 6, 16), random(2, 5, 16) - 1


def halves_that_change(module, before, after) -> list[bool]:
    return [
        not torch.allclose(old, new)
        for old, new in zip(
            module(*before).split(16, -1), module(*after).split(16, -1), strict=True
        )
    ]


def test_fusion_pools_normalises_and_keeps_the_local_half_first(fusion):
    module, local_tokens, global_tokens = fusion
    local = module.local_attention(local_tokens.mean(1), global_tokens[:, 1:])
    whole = module.global_attention(global_tokens[:, 0], local_tokens)
    expected = torch.cat([module.local_norm(local), module.global_norm(whole)], -1)
    assert_equal(module(local_tokens, global_tokens), expected)


def test_the_local_token_never_sees_the_class_token(fusion):
    module, local_tokens, global_tokens = fusion
    changed = global_tokens.clone()
    changed[:, 0] += random(2, 16)
    before = local_tokens, global_tokens
    assert halves_that_change(module, before, (local_tokens, changed)) == [False, True]


def test_the_local_token_sees_the_patches_and_the_class_token_does_not(fusion):
    module, local_tokens, global_tokens = fusion
    changed = global_tokens.clone()
    changed[:, 3] += random(2, 16)
    before = local_tokens, global_tokens
    assert halves_that_change(module, before, (local_tokens, changed)) == [True, False]


def test_the_class_token_sees_each_local_token_and_the_other_only_their_mean(fusion):
    module, local_tokens, global_tokens = fusion
    changed, step = local_tokens.clone(), random(2, 16)
    changed[:, 0] += step
    changed[:, 1] -= step
    before = local_tokens, global_tokens
    assert halves_that_change(module, before, (changed, global_tokens)) == [False, True]


def test_a_direction_that_is_off_leaves_its_token_as_it_is(make_micro_config):
    local_tokens, global_tokens = random(2, 6, 16), random(2, 5, 16)
    module = randomise(CrossFusion(make_micro_config(use_local_fusion=False)))
    local, _ = module(local_tokens, global_tokens).split(16, -1)
    assert_equal(local, module.local_norm(local_tokens.mean(1)))
    module = randomise(CrossFusion(make_micro_config(use_global_fusion=False)))
    _, whole = module(local_tokens, global_tokens).split(16, -1)
    assert_equal(whole, module.global_norm(global_tokens[:, 0]))


# ---- loss -----------------------------------------------------------------------------------

LOGITS = [[0.3, -2.0, 1.5], [-0.7, 0.0, 4.0]]
LABELS = [[1, 0, IGNORED], [0, 1, 1]]
RATIOS = [0.1, 0.9, 0.5]


def loss_by_hand(ratios) -> float:
    total = 0.0
    for logits, labels in zip(LOGITS, LABELS, strict=True):
        for logit, label, ratio in zip(logits, labels, ratios, strict=True):
            if label == IGNORED:
                continue
            probability = 1 / (1 + math.exp(-logit))
            likelihood = probability if label else 1 - probability
            total -= math.exp(1 - ratio if label else ratio) * math.log(likelihood)
    return total / len(LOGITS)


def test_the_loss_is_its_formula():
    logits, labels = torch.tensor(LOGITS, dtype=torch.double), torch.tensor(LABELS)
    loss = weighted_attribute_loss(logits, labels, torch.tensor(RATIOS))
    assert loss.item() == pytest.approx(loss_by_hand(RATIOS), rel=1e-6)


def test_without_ratios_the_loss_is_the_cross_entropy():
    logits, labels = torch.tensor(LOGITS), torch.tensor([[1, 0, 0], [0, 1, 1]])
    expected = functional.binary_cross_entropy_with_logits(logits, labels.float()) * 3
    torch.testing.assert_close(weighted_attribute_loss(logits, labels), expected)
    zero = weighted_attribute_loss(logits, labels, torch.zeros(3))  # e for a positive, 1 else
    weights = 1 + labels * (math.e - 1)
    weighted = functional.binary_cross_entropy_with_logits(logits, labels.float(), weights) * 3
    torch.testing.assert_close(zero, weighted)


@pytest.mark.parametrize("value", [0.0, 50.0, -50.0])
def test_what_is_unknown_has_no_value_and_no_gradient(value):
    logits = torch.tensor([[0.3, value]], requires_grad=True)
    loss = weighted_attribute_loss(logits, torch.tensor([[1, IGNORED]]), torch.tensor(RATIOS[:2]))
    loss.backward()
    assert loss.item() == pytest.approx(math.exp(0.9) * math.log1p(math.exp(-0.3)), rel=1e-6)
    assert logits.grad[0, 1] == 0
    assert logits.grad[0, 0] < 0


def test_balanced_weights_let_positives_and_negatives_count_the_same():
    ratios = torch.tensor([0.25, 0.01])  # the second is kept at 0.05
    labels = torch.tensor([[1, 1], [0, 0]])
    losses = torch.log(torch.tensor(2.0))
    loss = weighted_attribute_loss(torch.zeros(2, 2), labels, ratios, "balanced")
    weights = 0.5 / 0.25 + 0.5 / 0.75 + 0.5 / 0.05 + 0.5 / 0.95
    torch.testing.assert_close(loss, losses * weights / 2)


def test_a_batch_of_unknowns_has_no_loss():
    logits = torch.ones(2, 3, requires_grad=True)
    loss = weighted_attribute_loss(logits, torch.full((2, 3), IGNORED))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))
