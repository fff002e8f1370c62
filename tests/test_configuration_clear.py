import json
import re

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from transformers import BertConfig, GPT2Config, PreTrainedConfig

from clear_par.configuration_clear import AUTO_MAP, PRESETS, ClearConfig
from clear_par.modeling_clear import ClearForAttributeRecognition, LocalBranch

FIELDS = {
    *("image_height", "image_width", "use_local_branch", "local_patch_size", "local_window_size"),
    *("local_embed_dim", "local_depths", "local_num_heads", "local_mlp_ratio"),
    *("local_drop_path_rate", "use_channel_attention", "channel_attention_dropout"),
    *("channel_attention_published_layout", "use_global_branch", "global_patch_size"),
    *("global_embed_dim", "global_depth", "global_num_heads", "global_mlp_ratio"),
    *("global_drop_path_rate", "fusion_embed_dim", "fusion_num_heads", "use_local_fusion"),
    *("use_global_fusion", "attribute_positive_ratios", "attribute_weighting"),
    *("text_config", "text_pooling"),
    *("text_source", "text_revision", "initializer_range", "auto_map", "custom_pipelines"),
    *("local_architecture", "global_architecture"),
}


def save_and_load(config: ClearConfig, folder) -> ClearConfig:
    config.save_pretrained(folder)
    return ClearConfig.from_pretrained(folder)


def test_the_file_holds_exactly_the_fields_and_gives_them_back(make_micro_config, tmp_path):
    config = make_micro_config(
        local_depths=(1, 3),
        attribute_positive_ratios=(0, 0.25, 0.5, 0.75, 0.9, 1),
        text_pooling="last",
        text_source="me/text",
        text_revision="abc",
        use_local_fusion=False,
    )
    again = save_and_load(config, tmp_path)
    assert again.to_dict() == config.to_dict()
    assert isinstance(again.text_config, BertConfig)
    assert again.local_depths == [1, 3]
    assert again.attribute_positive_ratios == [0.0, 0.25, 0.5, 0.75, 0.9, 1.0]
    assert again.id2label[5] == "red"
    assert again.label2id["red"] == 5
    stored = json.loads((tmp_path / "config.json").read_text())
    assert set(stored) - set(PreTrainedConfig().to_dict()) == FIELDS
    assert stored["auto_map"] == AUTO_MAP
    assert stored["problem_type"] == "multi_label_classification"


def test_every_default_is_stored(tmp_path):
    """A later change of a default must not change what a stored checkpoint means."""
    save_and_load(ClearConfig(), tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert set(stored) >= FIELDS
    assert stored["local_depths"] == [2, 2, 18, 2]


def test_the_language_model_may_be_any_of_transformers(tmp_path, make_micro_config):
    text = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=30)
    again = save_and_load(make_micro_config(text_config=text.to_dict()), tmp_path)
    assert isinstance(again.text_config, GPT2Config)
    assert again.text_config.hidden_size == 16


def test_sizes_follow_from_the_fields():
    config = ClearConfig()
    assert config.local_widths == [128, 256, 512, 1024]
    assert config.local_grids == [(64, 32), (32, 16), (16, 8), (8, 4)]
    assert config.feature_dim == 2048
    assert ClearConfig(use_local_branch=False).feature_dim == 1024
    assert ClearConfig(fusion_embed_dim=64).feature_dim == 128
    assert ClearConfig(global_embed_dim=512).fusion_dim == 1024


def parameters_of(name: str, **changes) -> int:
    with torch.device("meta"):
        model = ClearForAttributeRecognition(ClearConfig.preset(name, **changes))
    return sum(parameter.numel() for parameter in model.parameters())


def test_the_base_preset_has_the_published_parameters():
    """411,705,266 in the authors' code at 26 attributes, of which 3,840 are never used."""
    assert parameters_of("clear-base", num_labels=26) == 411_705_266 - 3_840


def test_the_small_preset_is_swin_tiny_with_the_channel_attention_of_the_base():
    """28,288,354 parameters of the published Swin-T, 769,000 of them in its classifier."""
    with torch.device("meta"):
        branch = LocalBranch(ClearConfig.preset("clear-small"))
    count = sum(parameter.numel() for parameter in branch.parameters())
    assert count == 28_288_354 - 769_000 + 13_429_728


@pytest.mark.parametrize(("name", "millions"), [("clear-tiny", 7.5), ("clear-small", 67.8)])
def test_the_smaller_presets_have_their_size(name, millions):
    assert parameters_of(name, num_labels=105) / 1e6 == pytest.approx(millions, abs=0.1)


def test_a_preset_takes_changes_and_names_the_others():
    config = ClearConfig.preset("clear-tiny", image_height=256, num_labels=3)
    assert (config.image_height, config.image_width, config.num_labels) == (256, 64, 3)
    with pytest.raises(ValueError, match=r"`name` must be one of clear-tiny, clear-small, clear-b"):
        ClearConfig.preset("tiny")
    assert set(PRESETS) == {"clear-tiny", "clear-small", "clear-base"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"use_local_branch": False, "use_global_branch": False},
            "`use_local_branch` and `use_global_branch` must not both be False",
        ),
        ({"image_height": 0}, "`image_height` must be positive, got 0"),
        ({"local_patch_size": 0}, "`local_patch_size` must be positive, got 0"),
        ({"local_window_size": -7}, "`local_window_size` must be positive, got -7"),
        ({"local_mlp_ratio": 0}, "`local_mlp_ratio` must be positive, got 0"),
        ({"global_num_heads": 0}, "`global_num_heads` must be positive, got 0"),
        ({"global_depth": 0}, "`global_depth` must be positive, got 0"),
        ({"fusion_num_heads": 0}, "`fusion_num_heads` must be positive, got 0"),
        ({"fusion_embed_dim": 0}, "`fusion_embed_dim` must be positive, got 0"),
        ({"local_depths": (2, 0)}, "`local_depths` must be positive, got [2, 0]"),
        ({"local_num_heads": (0, 1)}, "`local_num_heads` must be positive, got [0, 1]"),
        ({"local_drop_path_rate": 1.0}, "`local_drop_path_rate` must lie in [0, 1), got 1.0"),
        ({"channel_attention_dropout": -0.1}, "`channel_attention_dropout` must lie in [0, 1)"),
        (
            {"local_depths": (1, 1, 1)},
            "`local_num_heads` must have one value for each stage of `local_depths` [1, 1, 1], "
            "got [1, 2]",
        ),
        ({"local_depths": (), "local_num_heads": ()}, "`local_num_heads` must have one value"),
        (
            {"image_width": 36},
            "`image_height` and `image_width` must be multiples of 8 (`local_patch_size` 4, 2 "
            "stages), got 32 x 36",
        ),
        (
            {"local_num_heads": (1, 3)},
            "`local_num_heads` must divide the stage widths [8, 16], got [1, 3]",
        ),
        ({"global_num_heads": 3}, "`global_num_heads` must divide `global_embed_dim` 16, got 3"),
        ({"global_patch_size": 33}, "`global_patch_size` must not exceed the image 32 x 32, got"),
        ({"fusion_num_heads": 3}, "`fusion_num_heads` must divide the fusion width 16, got 3"),
        ({"text_pooling": "max"}, '`text_pooling` must be "mean" or "last", got \'max\''),
        ({"text_config": {"hidden_size": 8}}, "`text_config` must name its `model_type`, got ['h"),
        (
            {"attribute_positive_ratios": [0.1]},
            "`attribute_positive_ratios` must have one value for each of the 6 attributes, got 1",
        ),
        (
            {"attribute_positive_ratios": [0.5] * 5 + [1.5]},
            "`attribute_positive_ratios` must lie in [0, 1]",
        ),
        ({"attribute_weighting": "heavy"}, "`attribute_weighting` must be exponential or balanced"),
        (
            {"attribute_positive_ratios": [float("nan")] * 6},
            "`attribute_positive_ratios` must lie in [0, 1]",
        ),
        (
            {"problem_type": "single_label_classification"},
            "`problem_type` must be 'multi_label_classification', got 'single_label_class",
        ),
    ],
)
def test_an_impossible_field_is_named(make_micro_config, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_micro_config(**changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [("image_height", "256"), ("local_depths", 2), ("use_local_branch", None), ("text_pooling", 1)],
)
def test_a_wrong_type_names_the_field(make_micro_config, name, value):
    with pytest.raises(StrictDataclassFieldValidationError, match=f"field '{name}'"):
        make_micro_config(**{name: value})


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("local_depth", "local_depths"),
        ("img_height", "image_height"),
        ("use_channel_atention", "use_channel_attention"),
        ("initialiser_range", "initializer_range"),
        ("text_model", "text_"),
    ],
)
def test_a_misspelt_field_is_refused_not_stored(make_micro_config, name, closest):
    message = f"Names must be fields of ClearConfig, got `{name}`; closest: .*{closest}"
    with pytest.raises(ValueError, match=message):
        make_micro_config(**{name: 1})


def test_a_name_of_a_part_that_resembles_nothing_is_refused(make_micro_config):
    with pytest.raises(ValueError, match=r"got `local_xyzzyqwert`\.$"):
        make_micro_config(local_xyzzyqwert=1)


def test_what_transformers_passes_is_accepted(make_micro_config):
    config = make_micro_config(
        use_cache=False, attn_implementation="sdpa", torch_dtype="float32", name_or_path="me/clear"
    )
    assert config.name_or_path == "me/clear"
    assert config.dtype is torch.float32


def test_fields_of_a_branch_that_is_off_are_not_checked(make_micro_config):
    make_micro_config(use_local_branch=False, local_num_heads=(3, 5), image_width=36)
    make_micro_config(use_global_branch=False, global_num_heads=7)


def test_fields_set_later_are_checked_before_a_model_is_built(micro_config):
    micro_config.id2label = {0: "hat", 1: "bag"}
    micro_config.attribute_positive_ratios = [0.5] * 6
    message = r"one value for each of the 2 attributes, got 6\. Set it to None, or"
    with pytest.raises(ValueError, match=message):
        ClearForAttributeRecognition(micro_config)
