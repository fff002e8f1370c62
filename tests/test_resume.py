"""A run that was interrupted ends as if it had not been: weights, averages, records."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from clear_par import train
from clear_par.training import states as states_module
from clear_par.training.recognition import RecognitionStage
from clear_par.training.retrieval import RetrievalStage
from clear_par.training.stage import inputs_fingerprint
from clear_par.training.states import Progress, RunStates

SMALL = {"epochs": 3, "state_every": 2, "learning_rate": 5e-3}  # 3 updates an epoch
STATES = Path("run.states")


class Stopped(Exception):
    """Stands for the end of the process."""


def stop_at(monkeypatch, stage: type, step: int) -> None:
    """The loss of so many batches is computed; then the run ends."""
    loss, count = stage.loss, iter(range(step))

    def counted(self, model, batch):
        if next(count, None) is None:
            raise Stopped
        return loss(self, model, batch)

    monkeypatch.setattr(stage, "loss", counted)


def weights_of(folder: str) -> dict[str, torch.Tensor]:
    return load_file(next(Path(folder).glob("*.safetensors")))


def is_same_run(one: str, other: str) -> bool:
    first, second = weights_of(one), weights_of(other)
    metrics = [json.loads((Path(name) / "metrics.json").read_text()) for name in (one, other)]
    return metrics[0] == metrics[1] and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("step", [1, 5, 6])
def test_an_interrupted_run_ends_bit_for_bit_as_another(make_settings, monkeypatch, step):
    history = train.main(make_settings(**SMALL, output_dir="whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, RecognitionStage, step)
        with pytest.raises(Stopped):
            train.main(make_settings(**SMALL))
    assert len(RunStates(Path("run"), 2, 2).all()) == min(2, step // 2 + step // 6)
    assert train.main(make_settings(**SMALL)) == history
    assert is_same_run("whole", "run")
    assert not STATES.exists()


def test_drop_out_and_accumulated_gradients_go_on_too(make_settings, monkeypatch):
    changes = {**SMALL, "gradient_accumulation_steps": 2, "batch_size": 8, "drop_path_rate": 0.2}
    history = train.main(make_settings(**changes, output_dir="whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, RecognitionStage, 11)  # batches, of which two make an update
        with pytest.raises(Stopped):
            train.main(make_settings(**changes))
    assert train.main(make_settings(**changes)) == history
    assert is_same_run("whole", "run")


def test_crops_that_were_skipped_are_counted_and_named_as_without_the_interruption(
    make_settings, bad_crops, monkeypatch
):
    names = bad_crops(*range(0, 48, 5))
    changes = {**SMALL, "state_every": 1, "on_bad_image": "skip"}
    history = train.main(make_settings(**changes, output_dir="whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, RecognitionStage, 5)  # in the second epoch
        with pytest.raises(Stopped):
            train.main(make_settings(**changes))
    assert train.main(make_settings(**changes)) == history
    assert [epoch["unreadable_crops"] for epoch in history] == [len(names)] * 3
    assert is_same_run("whole", "run")
    lists = [Path(name, "unreadable_crops.txt").read_text() for name in ("whole", "run")]
    assert lists == ["\n".join(names) + "\n"] * 2


def test_an_interrupted_adapter_ends_bit_for_bit_as_another(make_settings, monkeypatch):
    train.main(make_settings(epochs=1, output_dir="base"))
    changes = {**SMALL, "stage": "retrieval", "checkpoint": "base", "query_kind": "hard"}
    history = train.main(make_settings(**changes, output_dir="whole"))
    with monkeypatch.context() as patch:
        stop_at(patch, RetrievalStage, 5)
        with pytest.raises(Stopped):
            train.main(make_settings(**changes))
    size = sum(path.stat().st_size for path in RunStates(Path("run"), 2, 2).all()[-1].iterdir())
    adapter = (Path("run") / "adapter_model.safetensors").stat().st_size
    assert size < 8 * adapter + 100_000  # the file is in half precision; no frozen base
    Path("base").rename("first")
    train.main(make_settings(epochs=1, output_dir="base", seed=1))
    with pytest.raises(ValueError, match=r"`checkpoint` must hold .* weights, are others now"):
        train.main(make_settings(**changes))
    shutil.rmtree("base")
    Path("first").rename("base")
    assert train.main(make_settings(**changes)) == history
    assert is_same_run("whole", "run")


def test_other_crops_and_labels_are_other_inputs():
    def inputs(names: list[str], labels: list[int], frozen: str = "") -> str:
        crops = SimpleNamespace(rows={"image_name": names}, labels=torch.tensor([labels]))
        return inputs_fingerprint([crops], frozen)

    first = inputs(["a", "b"], [0, 1])
    assert first == inputs(["a", "b"], [0, 1])
    others = [
        inputs(["b", "a"], [0, 1]),
        inputs(["a", "b"], [1, 1]),
        inputs(["a", "b"], [0, 1], "x"),
    ]
    assert len({first, *others}) == 4


def test_other_settings_are_refused_by_name_and_nothing_is_lost(make_settings, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, RecognitionStage, 5)
        with pytest.raises(Stopped):
            train.main(make_settings(**SMALL))
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    changed = {**SMALL, "learning_rate": 1e-3, "num_workers": 1}
    with pytest.raises(ValueError, match=r"changed: learning_rate \(was 0.005, is 0.001\)\. Name"):
        train.main(make_settings(**changed))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    history = train.main(make_settings(**changed, resume="never", overwrite=True))
    assert len(history) == 3


def test_a_finished_run_is_not_overwritten_unasked(make_settings):
    train.main(make_settings(epochs=1))
    before = weights_of("run")
    with pytest.raises(ValueError, match="`output_dir` must not hold a finished run, got 'run'"):
        train.main(make_settings(epochs=1))
    with pytest.raises(ValueError, match="`output_dir` must not hold a finished run, got 'run'"):
        train.main(make_settings(epochs=1, resume="never"))
    assert all(torch.equal(before[name], tensor) for name, tensor in weights_of("run").items())


def test_a_damaged_state_is_named(make_settings, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(patch, RecognitionStage, 5)
        with pytest.raises(Stopped):
            train.main(make_settings(**SMALL))
    latest = RunStates(Path("run"), 2, 2).all()[-1]
    content = (latest / "weights.safetensors").read_bytes()
    (latest / "weights.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"whole states, '{latest}' cannot be read"):
        train.main(make_settings(**SMALL))


@pytest.mark.parametrize("step", [3, 5])
def test_time_that_is_over_leaves_a_state_to_go_on_from(make_settings, monkeypatch, step):
    history = train.main(make_settings(**SMALL, output_dir="whole"))
    with monkeypatch.context() as patch:
        clock = iter([0.0, *[10.0] * (step - 1), 4000.0])
        patch.setattr(train.time, "monotonic", lambda: next(clock))
        stopped = train.main(make_settings(**SMALL, max_hours=1.0))
    assert len(stopped) == (step - 1) // 3
    assert RunStates(Path("run"), 2, 2).all()[-1].name == f"step-{step:08d}"
    assert train.main(make_settings(**SMALL)) == history
    assert is_same_run("whole", "run")


def test_early_stopping_ends_after_so_many_epochs_without_a_better_score(
    make_settings, monkeypatch
):
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    monkeypatch.setattr(
        RecognitionStage, "evaluate", lambda *arguments: {"mean_accuracy": next(scores)}
    )
    history = train.main(make_settings(epochs=5, early_stopping=2))
    assert [record["mean_accuracy"] for record in history] == [0.5, 0.7, 0.6, 0.7]


def test_a_full_disk_leaves_the_last_state_and_the_run_whole(make_settings, monkeypatch):
    history = train.main(make_settings(**SMALL, output_dir="whole"))
    save, count = states_module.save_file, iter(range(2))

    def full(tensors, path):
        if next(count, None) is None:
            raise OSError(28, "No space left on device")
        save(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(states_module, "save_file", full)
        with pytest.raises(OSError, match=r"`output_dir` must have room .* No space left"):
            train.main(make_settings(**SMALL))
    names = sorted(path.name for path in STATES.iterdir())
    assert names == ["step-00000002", "step-00000003"]
    assert train.main(make_settings(**SMALL)) == history
    assert is_same_run("whole", "run")


def test_progress_keeps_the_first_of_equal_scores():
    progress = Progress(batches=2, total_loss=3.0)
    assert progress.finish_epoch({"score": 0.5}, "score")
    assert (progress.epoch, progress.batches, progress.total_loss) == (2, 0, 0.0)
    progress.batches = 1
    assert not progress.finish_epoch({"score": 0.5}, "score")
    assert progress.best_epoch == 1
    assert [epoch["loss"] for epoch in progress.history] == [1.5, 0.0]


# ---- real processes ---------------------------------------------------------------------------

OPTIONS = {"train_size": 48, "validation_size": 24, "test_size": 8, "width": 32, "height": 64}
# A program as train.py, of a model so small that 20 kills fit into minutes.
PROGRAM = """
import json, sys
from clear_par import train
from clear_par.configuration_clear import PRESETS
PRESETS["micro"] = json.loads(sys.argv[1])
losses, log = [], train.Accelerator.log
def record(accelerator, values, step=None, **options):
    if "loss" in values:
        losses.append([step, values["loss"]])
        if accelerator.is_main_process:
            with open("losses.jsonl", "a") as file:
                file.write(json.dumps([accelerator.num_processes, step, values["loss"]]) + "\\n")
train.Accelerator.log = record
train.main(train.parse_settings(sys.argv[2:]))
"""


# Every fifth crop of the training split cannot be read.
SPOIL = """
import datasets
from clear_par.training.settings import TrainingSettings
load = TrainingSettings.load_rows
def spoiled(settings, split):
    rows = load(settings, split)
    table = rows.cast_column("image", datasets.Image(decode=False)).to_list()
    for row in table[::5] if split == "train" else ():
        row["image"] = {"bytes": b"no picture", "path": None}
    return datasets.Dataset.from_list(table, features=rows.features)
TrainingSettings.load_rows = spoiled
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture
def program(tmp_path, tables, make_micro_config) -> tuple[list[str], dict]:
    """Arguments and environment of a real process that trains a micro model."""
    config = make_micro_config(text_config=None, channel_attention_dropout=0.0).to_dict()
    kept = {"image_height", "image_width", "fusion_embed_dim", "fusion_num_heads"}
    kept |= {"channel_attention_dropout"}
    kept |= {n for n in config if n.startswith(("local_", "global_"))}
    preset = json.dumps({name: config[name] for name in kept})
    (tmp_path / "program.py").write_text(PROGRAM)
    arguments = ["program.py", preset, "--dataset", "synthetic", "--preset", "micro"]
    arguments += ["--dataset_options", json.dumps(OPTIONS), "--report_to", "none"]
    changes = {"HF_DATASETS_CACHE": str(tables), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return arguments, {**os.environ, **changes, "ACCELERATE_USE_CPU": "true"}


def finish(command: list[str], folder: Path, environment: dict) -> None:
    process = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-3000:]


@pytest.mark.slow
def test_twenty_kills_end_in_the_same_weights(program, tmp_path):
    arguments, environment = program
    arguments = [*arguments, "--epochs", "12", "--batch_size", "8", "--state_every", "4"]
    command = [sys.executable, *arguments, "--output_dir"]
    finish([*command, "whole"], tmp_path, environment)
    moments, kills, states = random.Random(0), 0, RunStates(tmp_path / "run", 4, 2)
    for _ in range(20):
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [*command, "run"], cwd=tmp_path, env=environment, stdout=log, stderr=log
            )
            known = {path.name for path in states.all()}
            # Training has begun when a further state is there; half of the kills are aimed at
            # the writing of one.
            while process.poll() is None and known == {path.name for path in states.all()}:
                time.sleep(0.002)
            time.sleep(moments.choice([0.0, moments.uniform(0, 0.4)]))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
    assert kills >= 15  # the last ones may come after the end
    if not json.loads((tmp_path / "run/training_args.json").read_text()).get("finished"):
        finish([*command, "run"], tmp_path, environment)
    assert is_same_run(str(tmp_path / "whole"), str(tmp_path / "run"))
    assert not states.folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["recognition", "accumulated", "retrieval"])
def test_two_processes_train_as_one_with_the_same_global_batch(program, tmp_path, stage):
    arguments, environment = program
    arguments = [*arguments, "--epochs", "10", "--no_store_half"]
    if stage == "retrieval":
        base = [*arguments, "--epochs", "1", "--batch_size", "16", "--output_dir", "base"]
        finish([sys.executable, *base], tmp_path, environment)
        (tmp_path / "losses.jsonl").unlink()
        arguments += ["--stage", "retrieval", "--checkpoint", "base", "--query_kind", "hard"]
        arguments += ["--adapter_dropout", "0"]
    one = [*arguments, "--batch_size", "16", "--output_dir", "one"]
    two = [*arguments, "--batch_size", "8", "--output_dir", "two"]
    if stage == "accumulated":
        two += ["--batch_size", "4", "--gradient_accumulation_steps", "2"]
    finish([sys.executable, *one], tmp_path, environment)
    finish([*TORCHRUN, *two], tmp_path, environment)
    lines = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    losses = {n: [loss for world, _, loss in lines if world == n] for n in (1, 2)}
    assert len(losses[1]) == len(losses[2]) == 30  # world size 2 is real
    assert losses[2][:20] == pytest.approx(losses[1][:20], rel=1e-6)
    metrics = [
        json.loads((tmp_path / name / "metrics.json").read_text())["epochs"][-1]
        for name in ("one", "two")
    ]
    assert metrics[0] == pytest.approx(metrics[1], rel=1e-4)


@pytest.mark.slow
def test_two_processes_name_the_skipped_crops_of_both_also_when_interrupted(program, tmp_path):
    arguments, environment = program
    (tmp_path / "program.py").write_text(PROGRAM.replace("train.main(", f"{SPOIL}train.main("))
    command = [*TORCHRUN, *arguments, "--epochs", "2", "--batch_size", "8", "--output_dir", "run"]
    command += ["--on_bad_image", "skip"]
    finish([*command, "--max_hours", "1e-9"], tmp_path, environment)
    finish(command, tmp_path, environment)
    names = [f"train_{row:05d}.png" for row in range(0, 48, 5)]
    assert (tmp_path / "run/unreadable_crops.txt").read_text().splitlines() == names
    epochs = json.loads((tmp_path / "run/metrics.json").read_text())["epochs"]
    assert [epoch["unreadable_crops"] for epoch in epochs] == [len(names)] * 2


@pytest.mark.slow
def test_a_real_limit_of_the_file_size_leaves_everything_whole(program, tmp_path):
    arguments, environment = program
    command = [sys.executable, *arguments, "--epochs", "3", "--batch_size", "16"]
    finish([*command, "--output_dir", "whole"], tmp_path, environment)
    finish([*command, "--output_dir", "run", "--max_hours", "1e-9"], tmp_path, environment)
    states = RunStates(tmp_path / "run", 500, 2)
    before = [path.name for path in states.all()]
    assert before == ["step-00000001"]
    process = subprocess.run(
        [*command, "--output_dir", "run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert process.returncode != 0
    assert "Error" in process.stderr.strip().splitlines()[-1]
    assert [path.name for path in states.all()] == before
    finish([*command, "--output_dir", "run"], tmp_path, environment)
    assert is_same_run(str(tmp_path / "whole"), str(tmp_path / "run"))
