"""train.py and its stages in this process: formulas, settings and the loop."""

import copy
import json
import math
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from transformers import BertConfig, BertModel

from clear_par import evaluate_clear, train
from clear_par.attributes_clear import UNKNOWN, AttributeSchema
from clear_par.configuration_clear import ClearConfig
from clear_par.datasets_scripts.synthetic import SCHEMA_FILE
from clear_par.modeling_clear import ClearModel
from clear_par.processing_clear import ClearProcessor
from clear_par.training.averaging import WeightAverage
from clear_par.training.crops import positive_ratios
from clear_par.training.health import require_finite_score
from clear_par.training.optimization import parameter_groups, rate_schedule
from clear_par.training.queries import matching_rows
from clear_par.training.recognition import RecognitionStage
from clear_par.training.retrieval import RetrievalStage
from clear_par.training.settings import TrainingSettings

SCHEMA = AttributeSchema.from_json(SCHEMA_FILE)
TEXT_SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}

# ---- rate, decay, average ---------------------------------------------------------------------


def test_rate_rises_linearly_then_falls_by_half_a_cosine_to_one_percent():
    share = rate_schedule(100, 0.1)
    assert [share(step) for step in range(10)] == pytest.approx([k / 10 for k in range(1, 11)])
    assert share(10) == 1.0
    assert share(55) == pytest.approx(0.01 + 0.99 / 2)  # halfway down
    assert share(32.5) == pytest.approx(0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2)  # a quarter
    assert share(100) == pytest.approx(0.01)
    assert share(1000) == pytest.approx(0.01)
    assert all(a > b for a, b in pairwise(map(share, range(10, 101))))


@pytest.mark.parametrize("warmup_share", [0.0, 0.05, 1.0])
def test_rate_of_a_single_step_is_the_peak(warmup_share):
    assert rate_schedule(1, warmup_share)(0) == 1.0


def test_parameter_groups_hold_each_trainable_parameter_once(make_micro_config):
    model = ClearModel(make_micro_config()).train()
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, free = (
        {names[id(p)] for p in group["params"]} for group in parameter_groups(model, 0.3)
    )
    assert [g["weight_decay"] for g in parameter_groups(model, 0.3)] == [0.3, 0.0]
    trainable = {n for n, _ in model.named_parameters() if not n.startswith("language_model.")}
    assert not decayed & free
    assert decayed | free == trainable
    assert sum(len(g["params"]) for g in parameter_groups(model, 0.3)) == len(trainable)
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and not name.startswith("language_model."):
            assert {f"{name}.weight", f"{name}.bias"} <= free
        if isinstance(module, nn.Linear) and not name.startswith("language_model."):
            assert f"{name}.weight" in decayed
            assert f"{name}.bias" in free or module.bias is None
    assert any(name.endswith("cls_token") for name in free)
    assert all(name in free for name in trainable if name.endswith("bias"))


def linear_model(value: float) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_average_is_the_exponential_average_with_a_quick_start():
    values, model = [5.0, -2.0, 0.5, 8.0, 3.0, 1.0], linear_model(7.0)
    average, expected = WeightAverage(model, 0.25), 7.0
    for step, value in enumerate(values, 1):
        nn.init.constant_(model.weight, value)
        average.update()
        decay = min(0.25, step / (step + 9))  # 0.1, 0.18, 0.25, 0.25, ...
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 1.0


def test_average_with_decay_zero_is_the_model_itself():
    model = nn.Linear(50, 50)
    average = WeightAverage(model, 0.0)
    nn.init.normal_(model.weight)
    average.update()
    own = model.weight.detach().clone()
    with average.applied():
        assert torch.equal(model.weight, own)


def test_applied_restores_bitwise_also_after_an_error():
    model = nn.Linear(20, 20)
    average = WeightAverage(model, 0.9, round_to_half=True)
    nn.init.normal_(model.weight)
    average.update()
    own = copy.deepcopy(model.state_dict())

    def look():
        with average.applied():
            assert not torch.equal(model.weight, own["weight"])
            raise KeyError

    with pytest.raises(KeyError):
        look()
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("round_to_half", [True, False])
def test_average_is_rounded_to_half_only_when_asked(round_to_half):
    model = nn.Linear(20, 20)
    average = WeightAverage(model, 0.9, round_to_half)
    with average.applied():
        is_half = torch.equal(model.weight.half().float(), model.weight)
    assert is_half is round_to_half


def test_average_leaves_frozen_weights_alone():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].requires_grad_(False)
    frozen = model[0].weight.detach().clone()
    average = WeightAverage(model, 0.5, round_to_half=True)
    assert len(average.averages) == 2
    with average.applied():
        assert torch.equal(model[0].weight, frozen)
    assert not torch.equal(frozen.half().float(), frozen)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_average_refuses_a_decay_outside_its_range(decay):
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\)"):
        WeightAverage(nn.Linear(1, 1), decay)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_none_is_an_error(value):
    with pytest.raises(FloatingPointError, match=r"`mean_accuracy` must be finite, got "):
        require_finite_score(value, "mean_accuracy")
    require_finite_score(0.5, "mean_accuracy")


# ---- settings ---------------------------------------------------------------------------------


ADAPTER = {"stage": "retrieval", "checkpoint": "base"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stage": "retrival"}, "`stage` must be one of"),
        ({"stage": "retrieval"}, "`checkpoint` must name the trained model"),
        ({"preset": "clear-huge"}, "`preset` must be one of"),
        ({"dataset": "market"}, "`dataset` must be one of"),
        ({"query_kind": "loud"}, "`query_kind` must be one of"),
        ({"margin_kind": "wide"}, "`margin_kind` must be one of"),
        ({"mixed_precision": "fp8"}, "`mixed_precision` must be one of"),
        ({"dataset_options": "{train_size: 4}"}, "`dataset_options` must be a JSON object"),
        ({"dataset_options": "[1]"}, "`dataset_options` must be a JSON object"),
        ({"epochs": 0}, "`epochs` must be at least 1"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"feature_views": 0}, "`feature_views` must be at least 1"),
        ({"recipe": "asmr"}, "`recipe` must be another for the stage 'recognition', got 'asmr'"),
        ({**ADAPTER, "schedule": "plateau"}, "`schedule` must be another .*, got 'plateau'"),
        ({**ADAPTER, "on_bad_image": "skip"}, "`on_bad_image` must be another .*, got 'skip'"),
        ({**ADAPTER, "num_synthetic": 5}, "`num_synthetic` must be another .*, got 5"),
    ],
)
def test_wrong_settings_are_refused_with_their_name(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**changes)


def test_command_line_gives_settings():
    settings = train.parse_settings(["--epochs", "3", "--learning_rate", "1e-4", "--no_store_half"])
    assert (settings.epochs, settings.learning_rate, settings.store_half) == (3, 1e-4, False)
    assert train.parse_settings([]) == TrainingSettings()


def test_help_gives_the_reason_of_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        train.parse_settings(["--help"])
    assert stop.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for field in fields(TrainingSettings):
        assert f"--{field.name}" in said
        assert len(field.metadata["help"]) > 20
        assert " ".join(field.metadata["help"].split()).replace("-", "") in said.replace("-", "")
    assert said.count(TrainingSettings.__dataclass_fields__["store_half"].metadata["help"]) == 1
    assert "The opposite of --store_half." in said


def test_help_keeps_commands_on_lines_of_their_own(capsys):
    with pytest.raises(SystemExit):
        evaluate_clear.parse_settings(["--help"])
    assert "\n    python evaluate_clear.py --checkpoint . --adapter" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoks", "3"], "there are no such options: --epoks 3"),
        (["--epoch", "3"], "there are no such options: --epoch 3"),  # no abbreviations
        (["--stage", "retrieval"], "`checkpoint` must name"),
        (["--epochs", "many"], "invalid int value: 'many'"),
    ],
)
def test_command_line_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        train.parse_settings(arguments)
    usage, error = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    assert usage.startswith("usage: ")
    assert message in error


# ---- the loop ---------------------------------------------------------------------------------


def weights_of(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(next(Path(folder).glob("*.safetensors")))


def check_records(folder: Path, history: list[dict]) -> None:
    """Each epoch is in metrics.json, the curve is a picture, no file names this machine."""
    assert json.loads((folder / "metrics.json").read_text())["epochs"] == history
    with Image.open(folder / "training_curve.png") as curve:
        assert curve.format == "PNG"
        curve.load()
        assert curve.convert("L").getextrema()[0] < 128
    for path in folder.glob("*.json"):
        absolute = re.findall(r'"(?:/|[A-Z]:\\)[^"]*"', path.read_text())
        assert [text for text in absolute if len(text) > 3] == [], path.name
        assert str(Path.cwd()) not in path.read_text()
    left = [path.name for path in folder.rglob("*") if "partial" in path.name]
    assert left == []
    assert [path.name for path in folder.parent.glob(".*")] == []


def test_recognition_run_is_a_repository_with_its_records(make_settings):
    history = train.main(make_settings(output_dir=str(Path("deep/run").absolute())))
    folder = Path("deep/run")
    check_records(folder, history)
    assert [record["epoch"] for record in history] == [1, 2]
    names = {path.name for path in folder.iterdir()}
    assert {"modeling_clear.py", "processing_clear.py", "peft_clear.py", "config.json"} <= names
    assert "unreadable_crops.txt" not in names
    record = json.loads((folder / "training_args.json").read_text())
    assert record["output_dir"] == "run"
    assert record["dataset_options"]["train_size"] == 48
    model = ClearModel.from_pretrained(folder).eval()
    processor = ClearProcessor.from_pretrained(folder, trust_remote_code=True)
    crop = Image.new("RGB", (40, 90), "green")
    logits = model(**processor(images=crop, return_tensors="pt")).logits
    assert len(processor.decode(logits)) == 1
    assert list(model.config.id2label.values()) == list(SCHEMA.attributes)


def test_positive_ratios_come_from_the_training_split(make_settings):
    train.main(make_settings(epochs=1))
    ratios = ClearConfig.from_pretrained("run").attribute_positive_ratios
    labels = np.array(make_settings().load_rows("train").with_format("numpy")["labels"])
    for column, ratio in zip(labels.T, ratios, strict=True):
        known = column[column != -100]
        assert ratio == (pytest.approx((known == 1).mean()) if len(known) else 0.5)


def test_equal_seeds_give_equal_runs_bit_for_bit(make_settings):
    histories = [
        train.main(make_settings(output_dir=name, seed=seed, num_workers=workers))
        for name, seed, workers in [
            ("one", 0, 0),
            ("two", 0, 0),
            ("workers", 0, 1),
            ("other", 1, 0),
        ]
    ]
    assert histories[0] == histories[1] == histories[2]
    assert histories[0] != histories[3]
    one, two, workers, other = map(weights_of, ("one", "two", "workers", "other"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(torch.equal(one[name], workers[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_a_handful_of_crops_is_learned_by_heart(make_settings):
    history = train.main(
        make_settings(
            train_split="train[:8]",
            validation_split="train[:8]",
            batch_size=8,
            epochs=30,
            learning_rate=1e-2,
            ema_decay=0.5,
            padding=0,
            jitter=0.0,
            erasing=0.0,
        )
    )
    losses = [record["loss"] for record in history]
    assert losses[-1] < 0.4 * losses[0]
    assert history[-1]["mean_accuracy"] > history[0]["mean_accuracy"] + 0.1


@pytest.mark.parametrize(
    ("train_split", "validation_split", "kept"),
    [
        ("train", "validation", 2),
        ("validation[:20]+train", "validation[19:]", 4),
        ("trainval[:50]", "trainval[50:]", 2),
    ],
)
def test_the_best_epoch_is_kept_unless_its_crops_are_trained_on(
    make_settings, monkeypatch, train_split, validation_split, kept
):
    scores, weights = iter([0.3, 0.9, 0.5, 0.7]), []

    def evaluate(stage, model, loader):
        weights.append({n: t.clone() for n, t in stage.model.state_dict().items()})
        return {"mean_accuracy": next(scores)}

    monkeypatch.setattr(RecognitionStage, "evaluate", evaluate)
    splits = {"train_split": train_split, "validation_split": validation_split}
    train.main(make_settings(**splits, epochs=4))
    saved = weights_of("run")
    for epoch, state in enumerate(weights, 1):
        is_same = all(torch.equal(state[name], saved[name].float()) for name in state)
        assert is_same is (epoch == kept)
    assert len(json.loads(Path("run/metrics.json").read_text())["epochs"]) == 4
    rule = "the last" if kept == 4 else "epoch 2"
    assert f"Kept: {rule} of 4" in Path("run/README.md").read_text()


@pytest.fixture
def logged(monkeypatch) -> list[float]:
    """The loss of each update that trackers are told of."""
    losses = []

    def log(self, values: dict, step: int) -> None:
        losses.extend([values["loss"]] if "rate" in values else [])

    monkeypatch.setattr(Accelerator, "log", log)
    return losses


def test_the_logged_loss_is_that_of_one_batch_with_all_crops_of_the_update(make_settings, logged):
    options = json.dumps({"channel_attention_dropout": 0.0})
    usual = {"model_options": options, "store_half": False}
    whole = train.main(make_settings(**usual, output_dir="large"))
    steps = {"batch_size": 8, "gradient_accumulation_steps": 2}
    parts = train.main(make_settings(**usual, **steps, output_dir="small"))
    assert len(logged) == 12
    assert logged[6:] == pytest.approx(logged[:6], rel=1e-5)
    assert parts[1]["loss"] == pytest.approx(whole[1]["loss"], rel=1e-5)


def test_the_logged_loss_is_the_mean_also_where_an_update_has_fewer_batches(
    make_settings, logged, monkeypatch
):
    loss, seen = RecognitionStage.loss, []

    def record(stage, model, batch):
        seen.append(loss(stage, model, batch))
        return seen[-1]

    monkeypatch.setattr(RecognitionStage, "loss", record)
    train.main(make_settings(epochs=1, batch_size=8, gradient_accumulation_steps=4))
    values = [value.item() for value in seen]
    assert logged == pytest.approx([sum(values[:4]) / 4, sum(values[4:]) / 2])


def test_each_epoch_draws_its_own_changes(make_settings, monkeypatch):
    loss, seen = RecognitionStage.loss, []

    def record(stage, model, batch):
        seen.append(stage.train_crops.datasets[0].epoch)
        return loss(stage, model, batch)

    monkeypatch.setattr(RecognitionStage, "loss", record)
    train.main(make_settings(epochs=3, batch_size=24))
    assert seen == [1, 1, 2, 2, 3, 3]


def test_each_step_has_the_rate_of_the_schedule_and_a_clipped_gradient(make_settings, monkeypatch):
    rates, norms = [], []

    class Recording(torch.optim.AdamW):
        def step(self, *arguments, **options):
            parameters = [p for group in self.param_groups for p in group["params"]]
            norms.append(torch.stack([p.grad.norm() for p in parameters]).norm().item())
            rates.extend({group["lr"] for group in self.param_groups})
            return super().step(*arguments, **options)

    monkeypatch.setattr(torch.optim, "AdamW", Recording)
    train.main(make_settings(epochs=3, learning_rate=2e-3, warmup_share=0.2, max_grad_norm=0.25))
    share = rate_schedule(9, 0.2)
    assert rates == pytest.approx([2e-3 * share(step) for step in range(9)])
    assert norms == pytest.approx([0.25] * 9, rel=1e-3)


def test_store_half_decides_the_type_of_the_file(make_settings):
    train.main(make_settings(epochs=1, output_dir="half"))
    train.main(make_settings(epochs=1, output_dir="whole", store_half=False))
    half, whole = weights_of("half"), weights_of("whole")
    assert {t.dtype for t in half.values() if t.is_floating_point()} == {torch.float16}
    assert all(torch.equal(whole[name].half(), half[name].half()) for name in half)
    assert torch.float32 in {t.dtype for t in whole.values()}


def test_a_run_replaces_an_earlier_one(make_settings):
    train.main(make_settings(epochs=2))
    before = weights_of("run")
    (Path("run") / "notes.txt").write_text("of the earlier run")
    history = train.main(make_settings(epochs=1, seed=1, overwrite=True))
    check_records(Path("run"), history)
    assert not (Path("run") / "notes.txt").exists()
    assert not all(torch.equal(before[name], tensor) for name, tensor in weights_of("run").items())


def test_average_follows_the_weights_where_prepare_put_them(make_settings, monkeypatch):
    # As when they move to a device: what was copied before then is of another kind.
    monkeypatch.setattr(Accelerator, "prepare_model", lambda self, model, **kwargs: model.double())
    train.main(make_settings(epochs=1))
    assert (Path("run") / "model.safetensors").is_file()


def test_drawn_crops_join_the_training_split(make_settings):
    settings = make_settings(num_synthetic=20)
    stage = RecognitionStage(settings, Accelerator())
    assert [len(crops) for crops in stage.train_crops.datasets] == [48, 20]
    stage.start_epoch(4)
    assert [crops.epoch for crops in stage.train_crops.datasets] == [4, 4]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"learning_rate": 1e30}, FloatingPointError, "`loss` must be finite, got .* lower"),
        (
            {"batch_size": 49},
            ValueError,
            "`batch_size` of all processes together must not exceed .* got 49 on each for",
        ),
        ({"checkpoint": "nowhere"}, ValueError, "`checkpoint` must be a folder or a Hub id"),
        ({"checkpoint": "/no/where"}, ValueError, "`checkpoint` must be a folder or a Hub id"),
        ({"text_model": "./no/where"}, ValueError, "`text_model` must be a folder or a Hub id"),
        ({"dataset": "peta", "data_dir": "nowhere"}, FileNotFoundError, "nowhere"),
        ({"train_split": "training"}, ValueError, "training"),
        (
            {"train_split": "validation+train", "early_stopping": 2},
            ValueError,
            "`early_stopping` must be 0 where the last epoch is kept, got 2",
        ),
        ({"stage": "retrieval", "checkpoint": "nowhere"}, ValueError, "`checkpoint` must be"),
    ],
)
def test_a_run_that_cannot_go_on_says_why_and_writes_nothing(
    make_settings, changes, error, message
):
    if changes.get("dataset") == "peta":
        changes = {**changes, "dataset_options": "{}"}
    with pytest.raises(error, match=message):
        train.main(make_settings(output_dir="deep/run", **changes))
    assert list(Path().iterdir()) == []


def test_a_loss_that_is_none_names_the_crops_of_its_batch(make_settings, monkeypatch):
    loss, seen = RecognitionStage.loss, []

    def spoiled(stage, model, batch):
        seen.append([stage.train_image_names()[row] for row in batch["row"].tolist()])
        return loss(stage, model, batch) * (math.nan if len(seen) == 2 else 1.0)

    monkeypatch.setattr(RecognitionStage, "loss", spoiled)
    with pytest.raises(FloatingPointError) as error:
        train.main(make_settings(num_synthetic=8, batch_size=4))
    assert f"for the batch of 4 crops: {', '.join(seen[1])}. Look" in str(error.value)
    assert len(set(map(tuple, seen))) == 2


@pytest.mark.parametrize("is_cached", [True, False])
def test_crops_that_cannot_be_read_are_skipped_counted_and_named(
    make_settings, bad_crops, capsys, is_cached
):
    changes = {"cache_images": is_cached, "num_workers": 0 if is_cached else 1}
    names = bad_crops(5, 40)
    history = train.main(make_settings(on_bad_image="skip", **changes))
    assert [epoch["unreadable_crops"] for epoch in history] == [2, 2]
    assert Path("run/unreadable_crops.txt").read_text().splitlines() == names
    said = [line for line in capsys.readouterr().out.splitlines() if "cannot be read" in line]
    assert len(said) == 1
    assert f"2 crops cannot be read and are left out: {', '.join(names)}. " in said[0]
    with pytest.raises(ValueError, match="`rows` must hold readable images, got 'train_00"):
        train.main(make_settings(output_dir="other", **changes))


def test_weights_that_explode_in_the_last_step_are_not_kept(make_settings):
    with pytest.raises((FloatingPointError, ValueError), match=r"must be finite|NaN|nan"):
        train.main(make_settings(batch_size=48, epochs=1, learning_rate=1e30))
    assert list(Path().iterdir()) == []


def test_a_checkpoint_of_other_attributes_is_refused(make_settings):
    train.main(make_settings(epochs=1))
    path = Path("run/processor_config.json")
    content = json.loads(path.read_text())
    content["schema"] = AttributeSchema.from_names(["hat"]).to_dict()
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="`checkpoint` must know the attributes of 'synthetic'"):
        train.main(make_settings(checkpoint="run", output_dir="next"))


def test_recognition_goes_on_from_a_checkpoint(make_settings):
    train.main(make_settings(epochs=1))
    train.main(make_settings(epochs=1, checkpoint="run", output_dir="next", learning_rate=1e-12))
    before, after = weights_of("run"), weights_of("next")
    for name, tensor in before.items():
        torch.testing.assert_close(after[name].float(), tensor.float(), atol=1e-4, rtol=1e-3)


def test_a_checkpoint_learns_as_the_settings_say(make_settings):
    train.main(make_settings(epochs=1))
    changes = {"label_weights": "balanced", "drop_path_rate": 0.3, "train_split": "train[:20]"}
    stage = RecognitionStage(make_settings(checkpoint="run", **changes), Accelerator())
    config, labels = stage.model.config, stage.train_crops.datasets[0].labels.numpy()
    assert config.attribute_weighting == "balanced"
    assert config.attribute_positive_ratios == positive_ratios(labels)
    assert (config.local_drop_path_rate, config.global_drop_path_rate) == (0.3, 0.3)
    rates = {getattr(part, "drop_prob", 0.0) for part in stage.model.modules()}
    assert max(rates) == pytest.approx(0.3)
    stage = RecognitionStage(make_settings(checkpoint="run", label_weights="none"), Accelerator())
    assert stage.model.config.attribute_positive_ratios is None


# ---- the retrieval stage ----------------------------------------------------------------------


def test_retrieval_run_gives_an_adapter_and_leaves_the_base(make_settings):
    train.main(make_settings(epochs=1, output_dir="base"))
    before = weights_of("base")
    history = train.main(
        make_settings(stage="retrieval", checkpoint="base", query_kind="hard", embed_dim=32)
    )
    check_records(Path("run"), history)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of("base").items())
    assert json.loads(Path("run/adapter_config.json").read_text())["base_model_name_or_path"] == (
        "base"
    )
    model = ClearModel.from_pretrained("base").eval()
    model.load_adapter("run")
    processor = ClearProcessor.from_pretrained("base", trust_remote_code=True, query_kind="hard")
    crop = Image.new("RGB", (40, 90), "green")
    inputs = processor(images=crop, queries=[{"backpack": True}], return_tensors="pt")
    output = model(**inputs)
    assert output.image_embeds.shape == output.query_embeds.shape == (1, 32)


def test_text_queries_need_a_language_model(make_settings):
    train.main(make_settings(epochs=1, output_dir="base"))
    with pytest.raises(ValueError, match="`query_kind` must be hard for a checkpoint without"):
        train.main(make_settings(stage="retrieval", checkpoint="base"))
    assert [path.name for path in Path().iterdir()] == ["base"]


def test_retrieval_learns_its_training_categories(make_settings):
    train.main(make_settings(epochs=1, output_dir="base"))
    history = train.main(
        make_settings(
            stage="retrieval",
            checkpoint="base",
            query_kind="hard",
            validation_split="train",
            epochs=30,
            learning_rate=3e-3,
            ema_decay=0.5,
            feature_views=1,
            partial_weight=0.0,
            adapter_dropout=0.0,
        )
    )
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["mean_average_precision"] > 2 * history[0]["mean_average_precision"]


def test_retrieval_loss_adds_partial_queries_of_the_batch(make_settings):
    train.main(make_settings(epochs=1, output_dir="base"))
    changes = {"stage": "retrieval", "checkpoint": "base", "query_kind": "hard"}
    settings = make_settings(**changes, partial_weight=0.3, scale=5.0, margin=0.1)
    stage = RetrievalStage(settings, Accelerator())
    model = stage.model.eval()
    batch = next(iter(stage.loaders()[0]))
    images = model.get_image_features(features=batch["features"])
    categories = model.get_query_features(**stage.category_queries)
    cosines = 5.0 * (images @ categories.T)
    cosines[range(16), batch["categories"]] -= 5.0 * 0.1
    expected = nn.functional.cross_entropy(cosines, batch["categories"])
    own = stage.partial_queries["query_attributes"][batch["index"]]
    likelihoods = (5.0 * images @ model.get_query_features(query_attributes=own).T).log_softmax(0)
    matches = matching_rows(stage.labels[batch["index"]], own)
    losses = [-column[found].mean() for column, found in zip(likelihoods.T, matches.T, strict=True)]
    assert matches.diagonal().all()
    expected = expected + 0.3 * torch.stack(losses).mean()
    torch.testing.assert_close(stage.loss(model, batch), expected)


@pytest.fixture
def text_model(tmp_path, make_tokenizer) -> str:
    """A folder with a language model of one layer and its tokenizer of whole words."""
    folder = str(tmp_path / "text")
    tokenizer = make_tokenizer("a man woman person with and wearing black white red hat . ,")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    config = BertConfig(vocab_size=len(tokenizer), intermediate_size=16, **TEXT_SIZES)
    BertModel(config).save_pretrained(folder)
    return folder


def test_soft_and_hard_queries_use_the_language_model(make_settings, text_model):
    train.main(make_settings(epochs=1, output_dir="base", text_model=text_model))
    check_records(Path("base"), json.loads(Path("base/metrics.json").read_text())["epochs"])
    assert ClearConfig.from_pretrained("base").text_source == "text"
    train.main(make_settings(stage="retrieval", checkpoint="base", embed_dim=32, epochs=2))
    base = ClearModel.from_pretrained("base").eval()
    source = BertModel.from_pretrained(text_model)
    for name, tensor in base.language_model.named_parameters():
        assert torch.equal(tensor, source.get_parameter(name).half().float())
    base.load_adapter("run")
    processor = ClearProcessor.from_pretrained("base", trust_remote_code=True)
    inputs = processor(queries=[{"gender": "female"}, {"hat": True}], return_tensors="pt")
    assert inputs["input_ids"].shape[0] == 2
    both = base.get_query_features(**inputs)
    inputs["input_ids"] = inputs["input_ids"].flip(0)
    other = base.get_query_features(**inputs)
    assert both.shape == (2, 32)
    assert not torch.allclose(both[:, :16], other[:, :16])
    trained = weights_of("run")
    assert any("text_projection" in name for name in trained)


def test_the_language_model_is_no_concern_of_the_optimizer(make_settings, text_model):
    stage = RecognitionStage(make_settings(text_model=text_model), Accelerator())
    learned = {id(p) for g in parameter_groups(stage.model, 0.1) for p in g["params"]}
    assert not learned & {id(p) for p in stage.model.language_model.parameters()}
    assert learned == {id(p) for p in stage.model.parameters() if p.requires_grad}
    assert len(WeightAverage(stage.model, 0.9).averages) == len(learned)


@pytest.mark.parametrize("kind", ["soft", "soft+hard"])
def test_texts_enter_as_long_as_the_attribute_vector(make_settings, text_model, kind):
    train.main(make_settings(epochs=1, output_dir="base", text_model=text_model))
    changes = {"stage": "retrieval", "checkpoint": "base", "feature_views": 1, "query_kind": kind}
    train.main(make_settings(**changes, epochs=1, output_dir="adapter"))
    stage = RetrievalStage(make_settings(**changes), Accelerator())
    said = stage.category_queries["text_embeds"]
    kept = load_file("adapter/adapter_model.safetensors")
    name = "base_model.model.text_projection.retrieval_projections.encoder."
    found = (said - kept[name + "mean"].float()) * kept[name + "factor"].float()
    torch.testing.assert_close(found.mean(0), torch.zeros(said.shape[1]), rtol=0, atol=1e-3)
    length = (stage.category_queries["query_attributes"] != UNKNOWN).sum(1).float().mean()
    assert found.square().sum(1).mean().item() == pytest.approx(length.item(), rel=1e-3)
    assert not any("mean" in name or "factor" in name for name, _ in stage.model.named_parameters())
    config = json.loads(Path("adapter/adapter_config.json").read_text())
    assert config["standardize_text"] is True


def test_texts_enter_as_they_are_where_it_is_switched_off(make_settings, text_model):
    train.main(make_settings(epochs=1, output_dir="base", text_model=text_model))
    changes = {"stage": "retrieval", "checkpoint": "base", "standardize_text": False}
    stage = RetrievalStage(make_settings(**changes), Accelerator())
    assert stage.base.text_projection.retrieval_projections["default"].encoder is None


def test_each_query_kind_reads_its_own_text(make_settings, text_model):
    train.main(make_settings(epochs=1, output_dir="base", text_model=text_model))
    changes = {"stage": "retrieval", "checkpoint": "base", "feature_views": 1}
    base = ClearModel.from_pretrained("base").eval()
    for kind in ("words", "soft"):
        queries = RetrievalStage(make_settings(**changes, query_kind=kind), Accelerator())
        queries = queries.category_queries
        processor = ClearProcessor.from_pretrained("base", trust_remote_code=True, query_kind=kind)
        rows = queries["query_attributes"].numpy()
        inputs = processor(labels=rows, return_tensors="pt")
        expected = base.encode_text(inputs["input_ids"], inputs["attention_mask"])
        torch.testing.assert_close(queries["text_embeds"], expected)
