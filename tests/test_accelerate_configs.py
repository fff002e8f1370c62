"""Ready configurations of Accelerate: each is read by its own loader and means what it says."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate.commands import launch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from clear_par.train import parse_settings
from clear_par.training.launching import require_launch_as_asked

FOLDER = Path(__file__).resolve().parents[1] / "scripts" / "accelerate"
KINDS = {
    "cpu": (DistributedType.NO, "no", 1),
    "single_gpu_bf16": (DistributedType.NO, "bf16", 1),
    "multi_gpu": (DistributedType.MULTI_GPU, "bf16", 8),
    "multi_node": (DistributedType.MULTI_GPU, "bf16", 16),
    "fsdp": (DistributedType.FSDP, "bf16", 8),
    "deepspeed_zero2": (DistributedType.DEEPSPEED, "no", 8),
}
OPTIONS = {"train_size": 48, "validation_size": 24, "test_size": 8, "width": 32, "height": 64}
DATA = ("--dataset", "synthetic", "--dataset_options", json.dumps(OPTIONS), "--batch_size", "16")


def test_there_is_a_test_for_each_configuration():
    assert {path.stem for path in FOLDER.iterdir()} == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_the_configuration(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    kind, precision, processes = KINDS[name]
    assert (config.distributed_type, config.mixed_precision) == (kind, precision)
    assert (config.num_processes, config.num_machines) == (processes, 1 + (name == "multi_node"))
    assert config.use_cpu is (name == "cpu")


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_launch_would_start_it(name, monkeypatch):
    """The launcher's own checks pass, and it picks the starter of that kind."""
    started = []
    for starter in ("simple_launcher", "multi_gpu_launcher", "deepspeed_launcher"):
        monkeypatch.setattr(
            launch, starter, lambda args, kind=starter: started.append((kind, args))
        )
    parser = launch.launch_command_parser()
    launch.launch_command(
        parser.parse_args(["--config_file", str(FOLDER / f"{name}.yaml"), "x.py"])
    )
    ((starter, args),) = started
    kind, precision, processes = KINDS[name]
    expected = {"NO": "simple_launcher", "DEEPSPEED": "deepspeed_launcher"}
    assert starter == expected.get(kind.value, "multi_gpu_launcher")
    assert (args.mixed_precision, args.num_processes) == (precision, processes)
    assert args.use_fsdp is (name == "fsdp")
    if name == "deepspeed_zero2":
        assert (args.zero_stage, args.gradient_accumulation_steps) == (2, 1)
        assert args.gradient_clipping == parse_settings([]).max_grad_norm


def test_the_number_type_of_the_launcher_holds_unless_an_option_says_another(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert parse_settings([]).mixed_precision == "no"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert parse_settings([]).mixed_precision == "bf16"
    assert parse_settings(["--mixed_precision", "no"]).mixed_precision == "no"


# ---- a launcher that does less than it was asked ----------------------------------------------


def an_accelerator(processes: int = 1, kind=DistributedType.NO, accumulated: int = 1):
    return SimpleNamespace(
        num_processes=processes, distributed_type=kind, gradient_accumulation_steps=accumulated
    )


def launcher_environment(*arguments: str) -> dict[str, str]:
    """What `accelerate launch` gives the one process that it starts itself."""
    parser: argparse.ArgumentParser = launch.launch_command_parser()
    args = launch._validate_launch_command(parser.parse_args([*arguments, "train.py"]))[0]
    return launch.prepare_simple_launcher_cmd_env(args)[1]


def test_two_processes_of_which_one_was_started_are_refused(monkeypatch):
    for name in ("MASTER_PORT", "MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    asked = launcher_environment("--cpu", "--num_processes", "2")
    with pytest.raises(ValueError, match=r"got 1: .*Use scripts/launch_cpu\.sh N"):
        require_launch_as_asked(an_accelerator(), 1, asked)
    require_launch_as_asked(an_accelerator(2), 1, {**asked, "WORLD_SIZE": "2"})
    require_launch_as_asked(an_accelerator(1), 1, {**asked, "WORLD_SIZE": "1"})
    require_launch_as_asked(an_accelerator(), 1, {})
    one = launcher_environment("--cpu", "--num_processes", "1")
    require_launch_as_asked(an_accelerator(), 1, one)
    require_launch_as_asked(an_accelerator(), 1, {"MASTER_PORT": "29500"})  # of a batch system


def test_what_train_cannot_do_is_refused_before_it_starts():
    with pytest.raises(ValueError, match="must leave whole weights on each process"):
        require_launch_as_asked(an_accelerator(8, DistributedType.FSDP), 1, {})
    with pytest.raises(ValueError, match=r"got 1 and 4\. Give accelerate launch the option"):
        require_launch_as_asked(an_accelerator(8, DistributedType.DEEPSPEED), 4, {})


# ---- in processes of their own ----------------------------------------------------------------


@pytest.fixture(scope="module")
def start(repository, tmp_path_factory):
    """A function that runs a command in a folder on drawn crops and returns it when it is done."""
    tables = str(tmp_path_factory.mktemp("tables"))
    changes = {"HF_DATASETS_CACHE": tables, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    kept = {n: v for n, v in os.environ.items() if n not in ("MASTER_PORT", "WORLD_SIZE")}

    def run(folder: Path, *command: str, **variables: str):
        environment = {**kept, **changes, **variables}
        rest = (*DATA, "--epochs", "1", "--report_to", "none", "--output_dir", "run")
        return subprocess.run(
            [*command, *rest], cwd=folder, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    return run


def accelerate(name: str, *options: str) -> list[str]:
    train = str(FOLDER.parents[1] / "train.py")
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    return [*command, "--config_file", str(FOLDER / f"{name}.yaml"), *options, train]


def record_of(folder: Path) -> dict:
    return json.loads((folder / "run" / "training_args.json").read_text())


@pytest.mark.slow
def test_cpu_runs(start, tmp_path):
    process = start(tmp_path, *accelerate("cpu"))
    assert process.returncode == 0, process.stderr[-3000:]
    record = record_of(tmp_path)
    assert (record["num_processes"], record["mixed_precision"]) == (1, "no")
    assert record["finished"] is True


@pytest.mark.slow
def test_cpu_with_two_processes_asked_for_ends_with_the_remedy(start, tmp_path):
    process = start(tmp_path, *accelerate("cpu", "--num_processes", "2"))
    assert process.returncode != 0
    assert "Use scripts/launch_cpu.sh N" in process.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_launcher_for_processors_starts_as_many_as_asked(start, tmp_path):
    process = start(tmp_path, "bash", str(FOLDER.parent / "launch_cpu.sh"), "2")
    assert process.returncode == 0, process.stderr[-3000:]
    assert record_of(tmp_path)["num_processes"] == 2


@pytest.mark.slow
def test_multi_gpu_runs_on_processors_in_the_configured_number_type(start, tmp_path):
    command = accelerate("multi_gpu", "--num_processes", "2")
    process = start(tmp_path, *command, ACCELERATE_USE_CPU="true")
    assert process.returncode == 0, process.stderr[-3000:]
    record = record_of(tmp_path)
    assert (record["num_processes"], record["mixed_precision"]) == (2, "bf16")
