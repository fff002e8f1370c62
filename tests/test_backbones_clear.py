"""Pre-trained weights in the branches: equal to timm's tensors, and to timm's own loading."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from clear_par.backbones_clear import attention_heads, load_pretrained_backbones
from clear_par.configuration_clear import ClearConfig
from clear_par.modeling_clear import ClearModel, GlobalBranch, LocalBranch

SWIN, VIT = "swin_tiny_patch4_window7_224", "vit_small_patch16_224"
SMALL_SWIN = {"embed_dim": 8, "depths": (1, 2, 1, 1), "num_heads": (1, 2, 2, 4)}
SMALL_VIT = {"embed_dim": 64, "depth": 2, "num_heads": 4}


def timm_model(name: str, **sizes) -> torch.nn.Module:
    """A timm model whose every tensor shows, biases and norms included."""
    model, generator = timm.create_model(name, **sizes), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def saved(model: torch.nn.Module, path) -> str:
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    return str(path)


def small_config(**changes) -> ClearConfig:
    return ClearConfig(
        **{
            **{"image_height": 64, "image_width": 32, "num_labels": 3},
            **{"local_embed_dim": 8, "local_depths": (1, 2, 1, 1), "local_num_heads": (1, 2, 2, 4)},
            **{"global_patch_size": 16, "global_embed_dim": 64, "global_depth": 2},
            **{"global_num_heads": 4, "fusion_num_heads": 2},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("timm")
    return {
        "local_weights": saved(timm_model(SWIN, **SMALL_SWIN), folder / "swin.safetensors"),
        "global_weights": saved(timm_model(VIT, **SMALL_VIT), folder / "vit.safetensors"),
    }


def loaded_by_timm(name: str, path: str, **sizes) -> dict[str, torch.Tensor]:
    """What timm itself makes of a file at other sizes."""
    overlay = {"file": path}
    return timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay=overlay, **sizes
    ).state_dict()


def test_every_tensor_is_timms(files):
    model, info = ClearModel.from_pretrained_backbones(
        small_config(), **files, output_loading_info=True
    )
    for name, key in (("local", "local_weights"), ("global", "global_weights")):
        stored, found = load_file(files[key]), info[f"{name}_branch"]
        own = getattr(model.backbone, f"{name}_branch").state_dict()
        assert set(found["loaded"]) | set(found["new"]) == set(own)
        assert set(found["loaded"]) | set(found["left_out"]) == set(stored)
        for tensor in set(found["loaded"]) - set(found["resized"]):
            assert torch.equal(own[tensor], stored[tensor]), tensor
    assert info["local_branch"]["resized"] == []
    assert info["local_branch"]["left_out"] == [
        *("head.fc.bias", "head.fc.weight", "norm.bias", "norm.weight")
    ]
    new = info["local_branch"]["new"]
    assert len(new) == 4 * 6 + 2
    assert all("channel_attention" in name or name.startswith("norm.") for name in new)
    assert info["global_branch"]["resized"] == ["pos_embed"]
    assert info["global_branch"]["new"] == []


@pytest.mark.parametrize("size", [(64, 32), (112, 448)])
def test_position_embeddings_are_resampled_as_timm_does(files, size):
    """112 x 448 has as many patches as the original image, and another grid."""
    config = small_config(image_height=size[0], image_width=size[1], use_local_branch=False)
    model = ClearModel.from_pretrained_backbones(config, None, files["global_weights"])
    expected = loaded_by_timm(VIT, files["global_weights"], img_size=size, **SMALL_VIT)
    got = model.backbone.global_branch.pos_embed
    assert torch.equal(got, expected["pos_embed"])
    stored = load_file(files["global_weights"])["pos_embed"]
    assert torch.equal(got[:, :1], stored[:, :1])
    assert got.shape != stored.shape or not torch.equal(got, stored)


def test_tables_are_interpolated_as_timm_does_where_windows_differ(files):
    config = small_config(local_window_size=4, use_global_branch=False)
    model, info = ClearModel.from_pretrained_backbones(
        config, files["local_weights"], output_loading_info=True
    )
    sizes = {"img_size": (64, 32), "window_size": 4, "always_partition": True, **SMALL_SWIN}
    expected = loaded_by_timm(SWIN, files["local_weights"], **sizes)
    own = model.backbone.local_branch.state_dict()
    resized = info["local_branch"]["resized"]
    assert len(resized) == 5
    for name in resized:
        assert own[name].shape[0] == 49
        assert torch.equal(own[name], expected[name])


def test_a_filled_local_branch_computes_what_timm_computes(files):
    """At 224 x 224 every window divides its grid, so pad-first and timm's order agree."""
    sizes = {"image_height": 224, "image_width": 224, "use_channel_attention": False}
    config = small_config(**sizes, use_global_branch=False)
    model = ClearModel.from_pretrained_backbones(config, files["local_weights"]).eval()
    theirs = timm.create_model(SWIN, always_partition=True, **SMALL_SWIN).eval()
    theirs.load_state_dict(load_file(files["local_weights"]))
    torch.nn.init.ones_(theirs.norm.weight)
    torch.nn.init.zeros_(theirs.norm.bias)
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got, expected = model.backbone.local_branch(x), theirs.forward_features(x)
    torch.testing.assert_close(got, expected.flatten(1, 2), rtol=0, atol=1e-5)


def test_a_filled_global_branch_computes_what_timm_computes(files):
    config = small_config(image_height=224, image_width=224, use_local_branch=False)
    model = ClearModel.from_pretrained_backbones(config, None, files["global_weights"]).eval()
    theirs = timm.create_model(VIT, **SMALL_VIT).eval()
    theirs.load_state_dict(load_file(files["global_weights"]))
    theirs.norm = torch.nn.Identity()
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        got, expected = model.backbone.global_branch(x), theirs.forward_features(x)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_weights_in_the_layout_of_the_first_swin_release_are_read(files, tmp_path):
    """Microsoft's files: patch merging one stage earlier, and stored buffers."""
    stored = load_file(files["local_weights"])
    older = {}
    for name, tensor in stored.items():
        parts = name.split(".")
        if "downsample" in parts:
            parts[1] = str(int(parts[1]) - 1)
        older[".".join(parts).replace("head.fc.", "head.")] = tensor
    older["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    save_file(older, tmp_path / "older.safetensors")
    config = small_config(use_global_branch=False)
    model = ClearModel.from_pretrained_backbones(config, tmp_path / "older.safetensors")
    own = model.backbone.local_branch.state_dict()
    for stage in (1, 2, 3):
        name = f"layers.{stage}.downsample.reduction.weight"
        assert torch.equal(own[name], stored[name])


def test_the_rest_starts_as_in_a_new_model_and_can_be_saved(files, tmp_path):
    torch.manual_seed(0)
    model = ClearModel.from_pretrained_backbones(small_config(), **files)
    torch.manual_seed(0)
    fresh = ClearModel(small_config()).state_dict()
    for name, tensor in model.state_dict().items():
        part = name.removeprefix("backbone.")
        if "channel_attention" in part or part.startswith(("cross_fusion", "classifier")):
            assert torch.equal(tensor, fresh[name]), name
    norm = model.backbone.local_branch.norm
    assert (norm.weight == 1).all()
    assert (norm.bias == 0).all()
    model.save_pretrained(tmp_path)
    again = ClearModel.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_the_language_model_comes_along(files, tmp_path):
    from transformers import GPT2Config, GPT2Model

    text = GPT2Model(GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=30))
    text.save_pretrained(tmp_path / "text")
    config = small_config(text_source="openai-community/gpt2")
    model = ClearModel.from_pretrained_backbones(config, **files, text_model=str(tmp_path / "text"))
    got = model.language_model.state_dict()["wte.weight"]
    assert torch.equal(got, text.wte.weight.half().float())
    assert model.config.text_source == "openai-community/gpt2"


# ---- what is refused ------------------------------------------------------------------------

LACKING = "layers.1.blocks.1.mlp.fc1.weight"


def test_what_does_not_fit_is_listed_and_the_branch_is_unchanged(files, tmp_path):
    tensors = load_file(files["local_weights"])
    del tensors[LACKING]
    tensors["layers.0.blocks.0.mlp.fc1.bias"] = torch.zeros(7)
    tensors["layers.0.blocks.9.attn.relative_position_bias_table"] = torch.zeros(169, 1)
    tensors["extra"] = torch.zeros(1)
    save_file(tensors, tmp_path / "other.safetensors")
    config = small_config()
    backbone = ClearModel(config).backbone
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=r"`local_weights` must fit .*, got 4 tensors") as caught:
        load_pretrained_backbones(backbone, config, tmp_path / "other.safetensors")
    for text in (
        f"missing: {LACKING}",
        "unexpected: extra",
        "unexpected: layers.0.blocks.9.attn.relative_position_bias_table",
        "wrong shape: layers.0.blocks.0.mlp.fc1.bias [7], the branch has [32]",
    ):
        assert text in str(caught.value)
    assert all(torch.equal(before[n], tensor) for n, tensor in backbone.state_dict().items())


def test_another_width_is_refused(files):
    config = small_config(global_embed_dim=32)
    with pytest.raises(ValueError, match=r"cls_token \[1, 1, 64\], the .* \[1, 1, 32\]"):
        ClearModel.from_pretrained_backbones(config, **files)


def test_position_embeddings_without_a_class_token_are_refused(files, tmp_path):
    tensors = load_file(files["global_weights"])
    tensors["pos_embed"] = tensors["pos_embed"][:, 1:].contiguous()
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="`global_weights` must be those of a timm model"):
        ClearModel.from_pretrained_backbones(
            small_config(use_local_branch=False), None, tmp_path / "other.safetensors"
        )


def test_a_branch_without_a_source_is_an_error(files):
    with pytest.raises(ValueError, match=r"`global_architecture` must name a timm .* None"):
        ClearModel.from_pretrained_backbones(small_config(), files["local_weights"])


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224.ms_in22k", "no_such_model"])
def test_weights_that_cannot_be_fetched_name_the_remedy(name):
    config = small_config(local_architecture=name)
    with pytest.raises(ValueError, match=r"`local_architecture` .*Without a .*`local_weights`"):
        ClearModel.from_pretrained_backbones(config)


def test_other_heads_than_the_architectures_are_refused(files):
    config = small_config(use_local_branch=False, global_architecture=VIT)
    with pytest.raises(ValueError, match="must have the attention heads of 'vit_small_"):
        ClearModel.from_pretrained_backbones(config, None, files["global_weights"])


# ---- the presets ----------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["clear-small", "clear-base"])
def test_the_presets_name_timm_models_of_their_sizes(preset):
    """Every tensor of the architecture has its place; on the meta device, without memory."""
    config = ClearConfig.preset(preset)
    with torch.device("meta"):
        branches = {"local": LocalBranch(config), "global": GlobalBranch(config)}
        for name, branch in branches.items():
            architecture = getattr(config, f"{name}_architecture")
            assert timm.get_pretrained_cfg(architecture).has_weights
            theirs = (
                timm.create_model(architecture, always_partition=True)
                if (name == "local")
                else timm.create_model(architecture)
            )
            own, given = branch.state_dict(), theirs.state_dict()
            shapes = {n: t.shape for n, t in own.items() if "channel_attention" not in n}
            kept = {n: t.shape for n, t in given.items() if not n.startswith(("head", "fc_norm"))}
            if name == "global":
                assert kept.pop("pos_embed")[1:] != shapes.pop("pos_embed")[1:]
                kept = {n: s for n, s in kept.items() if not n.startswith("norm.")}
            assert kept == shapes
            assert attention_heads(branch) == attention_heads(theirs)


@pytest.mark.slow
def test_the_small_preset_starts_from_files_of_its_architectures(tmp_path):
    config = ClearConfig.preset("clear-small", num_labels=3)
    files = {}
    for name in ("local", "global"):
        model = timm_model(getattr(config, f"{name}_architecture"))
        files[f"{name}_weights"] = saved(model, tmp_path / f"{name}.safetensors")
    model, info = ClearModel.from_pretrained_backbones(config, **files, output_loading_info=True)
    own = model.backbone.global_branch.state_dict()
    expected = loaded_by_timm(VIT, files["global_weights"], img_size=(256, 128))
    for name in info["global_branch"]["loaded"]:
        assert torch.equal(own[name], expected[name]), name
    own, stored = model.backbone.local_branch.state_dict(), load_file(files["local_weights"])
    for name in info["local_branch"]["loaded"]:
        assert torch.equal(own[name], stored[name]), name
