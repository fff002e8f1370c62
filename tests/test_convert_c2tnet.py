"""The converter against the authors' tensors, and against their network written out a second time.

`reference` is that network in plain tensor operations, driven by a state dict with the authors'
keys; it shares no code with the model or the converter. The stored tensors of the authors' own code
vouch for it, and it vouches for the conversion at sizes of which no tensors are stored.
"""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clear_par.attributes_clear import AttributeSchema
from clear_par.modeling_clear import ClearForAttributeRecognition, ClearModel
from clear_par.scripts import convert_c2tnet_to_clear as converter
from clear_par.scripts.c2tnet_checkpoint import (
    CheckpointSizes,
    check_keys,
    convert_tensors,
    key_table,
    merge_columns,
    shapes_of,
)

FIXTURES = Path(__file__).parent / "fixtures"
MICRO = {"image_size": (64, 32), "global_heads": 4}


# ---- the authors' network, written out ------------------------------------------------------


def affine(sd: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    y = torch.einsum("...i,oi->...o", x, sd[f"{name}.weight"])
    return y + sd[f"{name}.bias"] if f"{name}.bias" in sd else y


def layer_norm(sd: dict, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred / (variance + eps).sqrt() * sd[f"{name}.weight"] + sd[f"{name}.bias"]


def perceptron(sd: dict, first: str, second: str, x: torch.Tensor) -> torch.Tensor:
    hidden = affine(sd, first, x)
    return affine(sd, second, 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))))


def patches(sd: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    """Patches side by side, the rest at the edges dropped: (batch, rows, columns, C)."""
    weight = sd[f"{name}.weight"]
    size = weight.shape[-1]
    rows = []
    for top in range(0, x.shape[2] - size + 1, size):
        tiles = [
            x[:, :, top : top + size, left : left + size].flatten(1)
            for left in range(0, x.shape[3] - size + 1, size)
        ]
        rows.append(torch.stack(tiles, 1) @ weight.flatten(1).T + sd[f"{name}.bias"])
    return torch.stack(rows, 1)


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, bias=0.0):
    """Attention of (batch, tokens, C), head by head."""
    width = q.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = q[..., part] @ k[..., part].transpose(-1, -2) / math.sqrt(width)
        scores = scores + (bias[head] if isinstance(bias, torch.Tensor) else bias)
        mixed.append(scores.softmax(-1) @ v[..., part])
    return torch.cat(mixed, -1)


def position_bias(table: torch.Tensor, size: int) -> torch.Tensor:
    """(heads, tokens, tokens) of a window, from the offsets between its places."""
    places = list(itertools.product(range(size), range(size)))
    entries = [
        [(y - v + size - 1) * (2 * size - 1) + x - u + size - 1 for v, u in places]
        for y, x in places
    ]
    return table[torch.tensor(entries)].permute(2, 0, 1)


def cyclic_origin(side: int, size: int, shift: int) -> list[int]:
    """Region of each row of the shifted grid: rows of two regions are strangers to each other."""
    return [(i >= side - size) + (i >= side - shift) for i in range(side)] if shift else [0] * side


def window_attention(sd: dict, name: str, x: torch.Tensor, heads: int, size: int, shift: int):
    """Zero-pad, roll, attend inside each window, roll back, crop: (batch, H, W, C)."""
    batch, height, width, channels = x.shape
    full_height, full_width = (math.ceil(side / size) * size for side in (height, width))
    padded = x.new_zeros(batch, full_height, full_width, channels)
    padded[:, :height, :width] = x
    padded = padded.roll((-shift, -shift), (1, 2))
    rows = torch.tensor(cyclic_origin(full_height, size, shift))
    columns = torch.tensor(cyclic_origin(full_width, size, shift))
    region = 3 * rows[:, None] + columns
    bias = position_bias(sd[f"{name}.relative_position_bias_table"], size)
    result = torch.empty_like(padded)
    for top, left in itertools.product(range(0, full_height, size), range(0, full_width, size)):
        at = (slice(top, top + size), slice(left, left + size))
        tokens = padded[:, *at].flatten(1, 2)
        labels = region[at].flatten()
        mask = -100.0 * (labels[:, None] != labels).to(x.dtype)
        q, k, v = affine(sd, f"{name}.qkv", tokens).chunk(3, -1)
        mixed = affine(sd, f"{name}.proj", attend(q, k, v, heads, bias + mask))
        result[:, *at] = mixed.reshape(batch, size, size, channels)
    return result.roll((shift, shift), (1, 2))[:, :height, :width]


def swin_block(sd: dict, name: str, x: torch.Tensor, heads: int, size: int, shift: int):
    normed = layer_norm(sd, f"{name}.norm1", x, 1e-5)
    x = x + window_attention(sd, f"{name}.attn.w_msa", normed, heads, size, shift)
    normed = layer_norm(sd, f"{name}.norm2", x, 1e-5)
    return x + perceptron(sd, f"{name}.ffn.layers.0.0", f"{name}.ffn.layers.1", normed)


def merge_patches(sd: dict, name: str, x: torch.Tensor) -> torch.Tensor:
    """Four neighbours into one token; of each channel the neighbours stand together."""
    corners = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    joined = torch.stack(corners, -1).flatten(-2)
    return affine(sd, f"{name}.reduction", layer_norm(sd, f"{name}.norm", joined, 1e-5))


def tab_block(sd: dict, name: str, maps: torch.Tensor) -> torch.Tensor:
    """Attention between channels of (batch, C, N), its memory re-read as the authors' code does."""
    batch, channels, tokens = maps.shape
    q, k, v = (affine(sd, f"{name}.c_{letter}", maps) for letter in "qkv")
    mixed = (q @ k.transpose(1, 2) / math.sqrt(tokens)).softmax(-1) @ v
    f = torch.arange(channels * tokens)
    return maps + mixed[:, f % channels, f // channels].reshape(batch, channels, tokens)


def local_reference(sd: dict, x: torch.Tensor, heads: list[int], seen: dict) -> torch.Tensor:
    table = sd["backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table"]
    size = (math.isqrt(len(table)) + 1) // 2
    x = patches(sd, "backbone.patch_embed.projection", x)
    x = layer_norm(sd, "backbone.patch_embed.norm", x, 1e-5)
    seen["patch_embed"] = x.flatten(1, 2)
    for stage, count in enumerate(heads):
        maps = tab_block(sd, f"backbone.tablocks.{stage}", x.flatten(1, 2).transpose(1, 2))
        seen[f"tab{stage}"] = maps
        x = maps.transpose(1, 2).reshape(x.shape)
        for block in itertools.count():
            name = f"backbone.stages.{stage}.blocks.{block}"
            if f"{name}.norm1.weight" not in sd:
                break
            x = swin_block(sd, name, x, count, size, block % 2 * (size // 2))
            seen[f"stage{stage}.block{block}"] = x.flatten(1, 2)
        seen[f"stage{stage}.out"] = x.flatten(1, 2)
        if stage < len(heads) - 1:
            x = merge_patches(sd, f"backbone.stages.{stage}.downsample", x)
        seen[f"stage{stage}.x"] = x.flatten(1, 2)
    return layer_norm(sd, f"backbone.norm{len(heads) - 1}", x.flatten(1, 2), 1e-5)


def global_reference(sd: dict, x: torch.Tensor, heads: int) -> torch.Tensor:
    tokens = patches(sd, "backbone.vit.patch_embed.proj", x).flatten(1, 2)
    first = sd["backbone.vit.cls_token"].expand(len(x), -1, -1)
    tokens = torch.cat([first, tokens], 1) + sd["backbone.vit.pos_embed"]
    depth = sum(name.endswith("attn.qkv.bias") for name in sd if ".vit." in name)
    for name in (f"backbone.vit.blocks.{block}" for block in range(depth)):
        normed = layer_norm(sd, f"{name}.norm1", tokens, 1e-6)
        q, k, v = affine(sd, f"{name}.attn.qkv", normed).chunk(3, -1)
        tokens = tokens + affine(sd, f"{name}.attn.proj", attend(q, k, v, heads))
        normed = layer_norm(sd, f"{name}.norm2", tokens, 1e-6)
        tokens = tokens + perceptron(sd, f"{name}.mlp.fc1", f"{name}.mlp.fc2", normed)
    return tokens


def cross_reference(sd: dict, name: str, token: torch.Tensor, others: torch.Tensor, heads: int):
    sequence = torch.cat([token[:, None], others], 1)
    q = affine(sd, f"{name}.wq", token[:, None])
    k, v = affine(sd, f"{name}.wk", sequence), affine(sd, f"{name}.wv", sequence)
    return affine(sd, f"{name}.proj", attend(q, k, v, heads))


@torch.no_grad()
def reference(sd: dict, x: torch.Tensor, local_heads, global_heads, fusion_heads=8) -> dict:
    """Every intermediate of the authors' network, under the names of the stored tensors."""
    seen = {}
    local = seen["norm3"] = local_reference(sd, x, local_heads, seen)
    tokens = seen["vit_tokens"] = global_reference(sd, x, global_heads)
    pooled = seen["pooled"] = local.mean(1)
    for name, token, others in (
        ("cross_att_eva_swin", tokens[:, 0], local),
        ("cross_att_swin_eva", pooled, tokens[:, 1:]),
    ):
        seen[name] = cross_reference(sd, f"backbone.{name}", token, others, fusion_heads)
    seen["norm_1.in"] = pooled + seen["cross_att_swin_eva"][:, 0]
    seen["norm_2.in"] = tokens[:, 0] + seen["cross_att_eva_swin"][:, 0]
    for name in ("norm_1", "norm_2"):
        seen[name] = layer_norm(sd, f"backbone.{name}", seen[f"{name}.in"], 1e-5)
    seen["feature"] = torch.cat([seen["norm_1"], seen["norm_2"]], -1)
    seen["logits"] = affine(sd, "classifier.logits.0", seen["feature"])
    return seen


# ---- what our model sees, under the same names ----------------------------------------------


def rows(x: torch.Tensor) -> torch.Tensor:
    return x.flatten(1, 2)


@torch.no_grad()
def intermediates(model: ClearForAttributeRecognition, x: torch.Tensor) -> dict[str, torch.Tensor]:
    local, fusion = model.backbone.local_branch, model.backbone.cross_fusion
    seen = {}

    def watch(name, module, read=lambda inputs, output: output):
        def note(_, inputs, output):
            seen[name] = read(inputs, output).clone()

        hooks.append(module.register_forward_hook(note))

    hooks = []
    watch("patch_embed", local.patch_embed, lambda _, out: rows(out))
    for i, stage in enumerate(local.layers):
        watch(f"tab{i}", stage.channel_attention, lambda _, out: rows(out).transpose(1, 2))
        watch(f"stage{i}.out", stage, lambda _, out: rows(out))
        for j, block in enumerate(stage.blocks):
            watch(f"stage{i}.block{j}", block, lambda _, out: rows(out))
        if i:
            watch(f"stage{i - 1}.x", stage.downsample, lambda _, out: rows(out))
    last = len(local.layers) - 1
    watch(f"stage{last}.x", local.layers[-1], lambda _, out: rows(out))
    watch("norm3", local)
    watch("vit_tokens", model.backbone.global_branch)
    watch("pooled", fusion.local_attention, lambda inputs, _: inputs[0])
    for name, branch in {"swin_eva": "local", "eva_swin": "global"}.items():
        attention = getattr(fusion, f"{branch}_attention")
        watch(f"cross_att_{name}", attention.out_proj, lambda _, out: out[:, None])
    for name, norm in {"norm_1": fusion.local_norm, "norm_2": fusion.global_norm}.items():
        watch(f"{name}.in", norm, lambda inputs, _: inputs[0])
        watch(name, norm)
    output = model(x)
    for hook in hooks:
        hook.remove()
    return {**seen, "feature": output.features, "logits": output.logits}


def assert_same(got: dict, expected: dict, tolerance: float) -> None:
    """Every named tensor within `tolerance` of its standard deviation."""
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].shape == tensor.shape, name
        difference = (got[name] - tensor).abs().max() / tensor.std()
        assert difference <= tolerance, f"{name}: {difference:.2e}"


def in_double(model: ClearModel) -> ClearModel:
    model = model.double()
    for module in model.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    return model


# ---- checkpoints ----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def micro() -> dict[str, torch.Tensor]:
    """Weights, input and every intermediate of the authors' code, at the smallest size."""
    return load_file(FIXTURES / "c2tnet_micro.safetensors")


@pytest.fixture(scope="session")
def weights(micro) -> dict[str, torch.Tensor]:
    return {name[3:]: tensor for name, tensor in micro.items() if name.startswith("sd.")}


@pytest.fixture(scope="session")
def expected(micro) -> dict[str, torch.Tensor]:
    names = {name: name.split(".", 1)[1] for name in micro if name.startswith(("mid.", "out."))}
    return {short: micro[name] for name, short in names.items() if short != "cosine"}


@pytest.fixture(scope="module")
def converted(weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    save_file(weights, folder / "micro.safetensors")
    converter.convert(folder / "micro.safetensors", folder / "clear", **MICRO)
    return folder / "clear"


def block_shapes(name: str, names: list[str], width: int, hidden: int) -> dict[str, tuple]:
    norm1, qkv, proj, norm2, first, second = (f"{name}.{part}" for part in names)
    shapes = {}
    for part, shape in (
        *((norm1, (width,)), (qkv, (3 * width, width)), (proj, (width, width))),
        *((norm2, (width,)), (first, (hidden, width)), (second, (width, hidden))),
    ):
        shapes |= {f"{part}.weight": shape, f"{part}.bias": shape[:1]}
    return shapes


LOCAL_NAMES = ["norm1", "attn.w_msa.qkv", "attn.w_msa.proj", "norm2"]
LOCAL_NAMES += ["ffn.layers.0.0", "ffn.layers.1"]
GLOBAL_NAMES = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]


def local_shapes(width, depths, heads, image, window, ratio) -> dict[str, tuple]:
    shapes = {"patch_embed.projection.weight": (width, 3, 4, 4)}
    ones = ["patch_embed.projection.bias", "patch_embed.norm.weight", "patch_embed.norm.bias"]
    shapes |= dict.fromkeys(ones, (width,))
    for i, depth in enumerate(depths):
        size, tokens = width * 2**i, (image[0] >> i + 2) * (image[1] >> i + 2)
        for j in range(depth):
            name = f"stages.{i}.blocks.{j}"
            attention = f"{name}.attn.w_msa.relative_position"
            shapes |= block_shapes(name, LOCAL_NAMES, size, int(ratio * size))
            shapes[f"{attention}_bias_table"] = ((2 * window - 1) ** 2, heads[i])
            shapes[f"{attention}_index"] = (window**2, window**2)
        for letter in "qkv":
            name = f"tablocks.{i}.c_{letter}"
            shapes |= {f"{name}.weight": (tokens, tokens), f"{name}.bias": (tokens,)}
        shapes |= dict.fromkeys([f"norm{i}.weight", f"norm{i}.bias"], (size,))
        if i + 1 < len(depths):
            name = f"stages.{i}.downsample"
            shapes |= dict.fromkeys([f"{name}.norm.weight", f"{name}.norm.bias"], (4 * size,))
            shapes[f"{name}.reduction.weight"] = (2 * size, 4 * size)
    return shapes


def checkpoint_shapes(
    width=8, depths=(2, 2, 2, 2), heads=(1, 2, 2, 4), image=(64, 32), window=7, ratio=4, **other
) -> dict[str, tuple]:
    """Shape of every key that the authors' model has at these sizes."""
    depth, count, patch = other.get("depth", 2), other.get("count", 26), other.get("patch", 14)
    wide = width * 2 ** (len(depths) - 1)
    shapes = local_shapes(width, depths, heads, image, window, ratio)
    shapes["vit.cls_token"] = (1, 1, wide)
    shapes["vit.pos_embed"] = (1, 1 + (image[0] // patch) * (image[1] // patch), wide)
    shapes |= {"vit.patch_embed.proj.weight": (wide, 3, patch, patch)}
    shapes |= {"vit.patch_embed.proj.bias": (wide,)}
    for j in range(depth):
        hidden = int(other.get("global_ratio", 4) * wide)
        shapes |= block_shapes(f"vit.blocks.{j}", GLOBAL_NAMES, wide, hidden)
    for name in ("vit.fc_norm", "norm_1", "norm_2"):
        shapes |= {f"{name}.weight": (wide,), f"{name}.bias": (wide,)}
    for name in ("cross_att_eva_swin", "cross_att_swin_eva"):
        shapes |= {f"{name}.{part}.weight": (wide, wide) for part in ("wq", "wk", "wv", "proj")}
        shapes[f"{name}.proj.bias"] = (wide,)
    shapes = {f"backbone.{name}": shape for name, shape in shapes.items()}
    head = "classifier.logits.0"
    return {**shapes, f"{head}.weight": (count, 2 * wide), f"{head}.bias": (count,)}


def random_checkpoint(**sizes) -> dict[str, torch.Tensor]:
    """Weights in double precision, large enough that each shows, small enough to stay tame."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    window = sizes.get("window", 7)
    places = torch.tensor(list(itertools.product(range(window), range(window))))
    offsets = places[:, None] - places + window - 1
    for name, shape in checkpoint_shapes(**sizes).items():
        if name.endswith("relative_position_index"):
            tensors[name] = offsets[..., 0] * (2 * window - 1) + offsets[..., 1]
            continue
        tensor = torch.randn(shape, generator=generator, dtype=torch.double)
        if len(shape) in (2, 4) and not name.endswith("table"):
            tensor /= math.sqrt(tensor[0].numel())
        elif "norm" in name and name.endswith("weight"):
            tensor = 1 + 0.3 * tensor
        tensors[name] = tensor
    return tensors


def model_of(tensors: dict[str, torch.Tensor], **options) -> ClearModel:
    """The model of a state dict in double precision, by the converter's own steps."""
    sizes = CheckpointSizes.from_shapes(shapes_of(tensors))
    table = key_table(sizes)
    check_keys(table, tensors)
    schema = AttributeSchema.from_names([f"a{i}" for i in range(sizes.num_labels)])
    model = ClearModel(converter.build_config(sizes, schema, **options)).eval()
    model = in_double(model)
    model.load_state_dict(convert_tensors(table, tensors))
    return model


# ---- equal to the authors' ------------------------------------------------------------------


def test_every_intermediate_is_the_authors(converted, micro, expected):
    model = ClearModel.from_pretrained(converted)
    assert_same(intermediates(model, micro["in.x"]), expected, 1e-5)


def test_double_precision_is_the_authors(converted, micro):
    model = in_double(ClearModel.from_pretrained(converted))
    with torch.no_grad():
        output = model(micro["in.x"].double())
    for name, got in (("feature", output.features), ("logits", output.logits)):
        torch.testing.assert_close(got, micro[f"out64.{name}"], rtol=0, atol=1e-9)


def test_the_network_written_out_is_the_authors(micro, weights, expected):
    double = {name: t.double() if t.is_floating_point() else t for name, t in weights.items()}
    seen = reference(double, micro["in.x"].double(), [1, 2, 2, 4], 4)
    assert_same({n: t.float() for n, t in seen.items()}, expected, 1e-5)
    for name in ("feature", "logits"):
        torch.testing.assert_close(seen[name], micro[f"out64.{name}"], rtol=0, atol=1e-9)


CASES = {  # sizes of the checkpoint, and the options that its tensors do not tell
    "published image": ({"image": (256, 128), "width": 8, "depths": (1, 2, 3, 2), "count": 40}, {}),
    "wider, other heads": (
        {"image": (256, 128), "width": 16, "heads": (2, 4, 4, 8), "depth": 3, "count": 17},
        {"global_heads": 8, "fusion_heads": 4},
    ),
    "even window": (
        {"image": (96, 64), "window": 4, "depths": (2, 1, 2, 3), "heads": (2, 2, 4, 8)},
        {"image_size": (96, 64)},
    ),
    "landscape, other ratios": (
        {"image": (32, 96), "ratio": 2.5, "global_ratio": 1.5, "patch": 16, "count": 2},
        {"image_size": (32, 96)},
    ),
    "three stages, deep": (
        {"image": (64, 32), "width": 16, "depths": (1, 5, 2), "heads": (1, 2, 8), "window": 5},
        {"image_size": (64, 32)},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_other_sizes_convert_to_the_network_written_out(case):
    sizes, options = CASES[case]
    tensors = random_checkpoint(**sizes)
    image = options.get("image_size", (256, 128))
    x = torch.randn(1, 3, *image, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    wide = len(tensors["backbone.norm_1.weight"])
    heads = sizes.get("heads", (1, 2, 2, 4))
    seen = reference(
        tensors, x, heads, options.get("global_heads", wide // 64), options.get("fusion_heads", 8)
    )
    got = intermediates(model_of(tensors, **options), x)
    assert_same(got, seen, 1e-9)
    assert seen["logits"].abs().max() > 0.01


def test_merged_columns_are_those_of_the_neighbours():
    """Columns told apart: channel c of the neighbour in row r and column k is 100 c + 10 r + k."""
    theirs = [100 * c + 10 * r + k for c in range(3) for r in range(2) for k in range(2)]
    ours = [100 * c + 10 * r + k for k in range(2) for r in range(2) for c in range(3)]
    assert merge_columns(torch.tensor([theirs, theirs])).tolist() == [ours, ours]


# ---- every key of the published size --------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> dict:
    return json.loads((FIXTURES / "c2tnet_keys_full.json").read_text())


def on_meta(shapes: dict) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_all_published_keys_have_a_place(published):
    shapes = {name: tuple(shape) for name, (shape, _) in published["keys"].items()}
    assert len(shapes) == 691
    assert (
        checkpoint_shapes(*(128, (2, 2, 18, 2), (4, 8, 16, 32), (256, 128)), depth=24) == shapes
    )  # vouches for the shapes of the random checkpoints
    tensors = on_meta(shapes)
    table = key_table(CheckpointSizes.from_shapes(shapes))
    check_keys(table, tensors)
    assert len(table) == 691
    with torch.device("meta"):
        model = ClearModel(
            converter.build_config(
                CheckpointSizes.from_shapes(shapes), converter.schema_for(None, 26)
            )
        )
    model.load_state_dict(convert_tensors(table, tensors), assign=True)
    dropped = {row.source: math.prod(row.shape) for row in table if row.target is None}
    indices = {name for name in dropped if name.endswith("relative_position_index")}
    assert indices == set(published["buffers"])
    unused = {name: count for name, count in dropped.items() if name not in indices}
    assert unused == published["never_used_in_forward"]
    assert all(row.reason for row in table if row.target is None)
    kept = sum(parameter.numel() for parameter in model.parameters())
    assert kept + sum(unused.values()) == published["n_parameters"] == 411_705_266


def count(module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def assert_published_parts(model: ClearForAttributeRecognition) -> None:
    """Parameters of each part, in full: what the authors' forward never reads is subtracted."""
    backbone = model.backbone
    fusion, stages = backbone.cross_fusion, backbone.local_branch.layers
    channel = [count(stage.channel_attention) for stage in stages]
    assert channel == [12_589_056, 787_968, 49_536, 3_168]
    assert sum(channel) == 13_429_728
    assert count(backbone.global_branch) == 303_082_496 - 2_048
    assert count(backbone.local_branch) - sum(channel) == 86_745_016 - 1_792
    assert count(fusion.local_attention) + count(fusion.global_attention) == 8_390_656
    assert count(fusion.local_norm) + count(fusion.global_norm) == 4_096
    assert count(fusion) == 8_390_656 + 4_096
    assert count(model.classifier) == 53_274
    assert count(model) == 411_705_266 - 2_048 - 1_792


def test_each_part_has_the_published_parameters():
    from clear_par.configuration_clear import ClearConfig

    with torch.device("meta"):
        model = ClearModel(ClearConfig.preset("clear-base", num_labels=26))
    assert_published_parts(model)


def test_heads_must_be_told_where_the_width_does_not_tell():
    shapes = checkpoint_shapes(width=4, heads=(1, 1, 2, 2))
    sizes = CheckpointSizes.from_shapes(shapes)
    schema = AttributeSchema.from_names(map(str, range(26)))
    with pytest.raises(ValueError, match="`--global-heads` must be given: width 32"):
        converter.build_config(sizes, schema, (64, 32))
    assert converter.build_config(sizes, schema, (64, 32), 2).global_num_heads == 2


def test_branches_of_two_widths_are_refused():
    shapes = checkpoint_shapes()
    shapes.update({n: s for n, s in checkpoint_shapes(width=16).items() if ".vit." in n})
    schema = AttributeSchema.from_names(map(str, range(26)))
    with pytest.raises(ValueError, match=r"one width .* got local 64, global 128, fusion 64"):
        converter.build_config(CheckpointSizes.from_shapes(shapes), schema, (64, 32))
