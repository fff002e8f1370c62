"""Optimizers and rates against torch's own, recipes, and what a bad crop does to a run."""

import math

import pytest
import torch
from torch import nn

from clear_par import train
from clear_par.modeling_clear import ClearModel
from clear_par.training.optimization import (
    build_optimizer,
    layer_rate_scale,
    plateau_share,
    rate_share,
    set_rate,
)
from clear_par.training.settings import RECIPES, TrainingSettings


def test_plateau_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        noise = torch.rand(40, generator=generator).tolist()
        losses = [1 / (1 + 0.2 * epoch) + 0.1 * value for epoch, value in enumerate(noise)]
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=4)
        for epoch, loss in enumerate(losses, 1):
            scheduler.step(loss)
            assert plateau_share(losses[:epoch]) == pytest.approx(optimizer.param_groups[0]["lr"])


def test_rates_fall_towards_the_input_of_both_branches(make_micro_config):
    config = make_micro_config()  # two stages of two blocks; two global blocks
    scale = layer_rate_scale(0.5, config.local_depths, config.global_depth)
    expected = {
        "backbone.local_branch.patch_embed.proj.weight": 5,
        "backbone.local_branch.layers.0.channel_attention.query.weight": 4,
        "backbone.local_branch.layers.0.blocks.0.norm1.weight": 4,
        "backbone.local_branch.layers.0.blocks.1.attn.qkv.weight": 3,
        "backbone.local_branch.layers.1.downsample.reduction.weight": 2,
        "backbone.local_branch.layers.1.blocks.0.mlp.fc1.weight": 2,
        "backbone.local_branch.layers.1.blocks.1.mlp.fc1.weight": 1,
        "backbone.local_branch.norm.weight": 0,
        "backbone.global_branch.cls_token": 3,
        "backbone.global_branch.pos_embed": 3,
        "backbone.global_branch.patch_embed.proj.weight": 3,
        "backbone.global_branch.blocks.0.attn.qkv.weight": 2,
        "backbone.global_branch.blocks.1.mlp.fc2.bias": 1,
        "backbone.cross_fusion.local_attention.query_proj.weight": 0,
        "classifier.weight": 0,
    }
    assert expected.keys() <= dict(ClearModel(config).named_parameters()).keys()
    assert {name: scale(name) for name in expected} == {
        name: 0.5**layers for name, layers in expected.items()
    }


def test_each_group_takes_its_share_of_the_rate(micro_model):
    settings = TrainingSettings(learning_rate=0.1, layer_decay=0.5, weight_decay=0.3)
    scale = layer_rate_scale(0.5, (2, 2), 2)
    optimizer = build_optimizer(micro_model, settings, scale)
    set_rate(optimizer, 0.01)
    names = {id(p): name for name, p in micro_model.named_parameters()}
    for group in optimizer.param_groups:
        assert {scale(names[id(p)]) for p in group["params"]} == {group["rate_scale"]}
        assert group["lr"] == pytest.approx(0.01 * group["rate_scale"])
    learned = [p for p in micro_model.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(learned)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_the_optimizer_is_the_one_asked_for(name, kind):
    settings = TrainingSettings(optimizer=name)
    assert type(build_optimizer(nn.Linear(2, 2), settings, lambda name: 1.0)) is kind


def test_the_schedule_is_the_one_asked_for():
    history = [{"validation_loss": loss} for loss in (1.0, *[2.0] * 5)]
    shares = {
        schedule: rate_share(TrainingSettings(schedule=schedule), 50, 100, history)
        for schedule in ("cosine", "plateau", "constant")
    }
    progress = (50 - 5) / (100 - 5)
    assert shares["cosine"] == pytest.approx(0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
    assert (shares["plateau"], shares["constant"]) == (pytest.approx(0.1), 1.0)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_sets_the_defaults_and_an_option_wins(recipe):
    stage = {"stage": "retrieval", "checkpoint": "."} if recipe == "asmr" else {}
    words = [word for name, value in stage.items() for word in (f"--{name}", value)]
    settings = train.parse_settings([*words, "--recipe", recipe, "--learning_rate", "0.5"])
    expected = {**RECIPES[recipe], "learning_rate": 0.5, "recipe": recipe}
    assert {name: getattr(settings, name) for name in expected} == expected
    unchanged = TrainingSettings(**stage)
    for name in vars(unchanged).keys() - expected.keys() - {"recipe"}:
        assert getattr(settings, name) == getattr(unchanged, name), name


def test_the_recipe_of_the_authors_is_theirs():
    settings = train.parse_settings(["--recipe", "authors"])
    assert (settings.optimizer, settings.learning_rate, settings.weight_decay) == ("adam", 1e-5, 0)
    assert (settings.batch_size, settings.epochs, settings.max_grad_norm) == (64, 20, 10.0)
    assert (settings.schedule, settings.ema_decay, settings.padding) == ("plateau", 0.0, 10)


@pytest.mark.parametrize("recipe", ["authors", "modern"])
def test_recipes_run(make_settings, recipe):
    history = train.main(make_settings(**{**RECIPES[recipe], "recipe": recipe, "epochs": 1}))
    assert len(history) == 1
    assert math.isfinite(history[0]["validation_loss"])
