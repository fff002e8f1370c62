"""train.py as its users start it: python, accelerate and torchrun, and as the system ends it."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from clear_par.configuration_clear import ClearConfig
from clear_par.modeling_clear import ClearModel
from clear_par.processing_clear import ClearProcessor
from clear_par.training.crops import PersonCrops
from clear_par.training.evaluation import recognition_scores
from clear_par.training.settings import TrainingSettings

OPTIONS = {"train_size": 48, "validation_size": 24, "test_size": 8, "width": 32, "height": 64}
DATA = ("--dataset", "synthetic", "--dataset_options", json.dumps(OPTIONS))
PYTHON = (sys.executable,)
ACCELERATE = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")

LOAD = """
import json, sys
import torch
from transformers import AutoModel, AutoModelForImageClassification, AutoProcessor
base, adapter, output = sys.argv[1:]
model = AutoModel.from_pretrained(base, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(base, trust_remote_code=True, query_kind="hard")
model.load_adapter(adapter)
from PIL import Image
crop = Image.new("RGB", (40, 90), (10, 120, 200))
inputs = processor(images=[crop], queries=[{"backpack": True}], return_tensors="pt")
with torch.no_grad():
    result = model(**inputs)
names = ("logits", "image_embeds", "query_embeds")
said = {name: getattr(result, name)[0].tolist() for name in names}
assert "clear_par" not in sys.modules
json.dump(said, open(output, "w"))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Tables of drawn crops are built once for this file; each process computes on one thread."""
    tables = str(tmp_path_factory.mktemp("tables"))
    changes = {"HF_DATASETS_CACHE": tables, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return {**os.environ, **changes}


@pytest.fixture(scope="module")
def start(repository, environment):
    """A function that runs train.py from another folder and returns the finished process."""

    def start(folder: Path, launcher: tuple[str, ...], *arguments: object):
        command = [*launcher, str(repository / "train.py"), *map(str, arguments)]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    return start


def check(process: subprocess.CompletedProcess) -> None:
    assert process.returncode == 0, process.stderr[-3000:]


@pytest.fixture(scope="module")
def finished(start, tmp_path_factory) -> Path:
    """A folder with a recognition run of plain python and a retrieval run of accelerate."""
    folder = tmp_path_factory.mktemp("finished")
    usual = (*DATA, "--batch_size", 16)
    check(start(folder, PYTHON, *usual, "--epochs", 2, "--output_dir", "base"))
    stage = ("--stage", "retrieval", "--checkpoint", "base", "--query_kind", "hard")
    check(start(folder, ACCELERATE, *usual, *stage, "--epochs", 1, "--output_dir", "adapter"))
    return folder


def test_finished_runs_load_in_a_fresh_process_elsewhere(finished, environment, tmp_path):
    for name in ("base", "adapter"):
        shutil.copytree(finished / name, tmp_path / "far" / name)
    (tmp_path / "load.py").write_text(LOAD)
    command = [sys.executable, "load.py", "far/base", "far/adapter", "said.json"]
    environment = {**environment, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    check(
        subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    )
    said = json.loads((tmp_path / "said.json").read_text())
    model = ClearModel.from_pretrained(finished / "base").eval()
    processor = ClearProcessor.from_pretrained(finished / "base", trust_remote_code=True)
    image = np.full((90, 40, 3), (10, 120, 200), dtype=np.uint8)
    with torch.no_grad():
        logits = model(**processor(images=[image], return_tensors="pt")).logits[0]
    assert said["logits"] == pytest.approx(logits.tolist(), abs=1e-5)
    for name in ("image_embeds", "query_embeds"):
        assert np.linalg.norm(said[name]) == pytest.approx(1, abs=1e-5)


def test_finished_run_has_everything_and_no_place_of_this_machine(finished):
    expected = {"model.safetensors", "config.json", "processor_config.json", "metrics.json"}
    expected |= {"training_args.json", "training_curve.png", "modeling_clear.py", "peft_clear.py"}
    assert expected <= {path.name for path in (finished / "base").iterdir()}
    expected = {"adapter_model.safetensors", "adapter_config.json", "metrics.json"}
    expected |= {"training_args.json", "training_curve.png", "README.md"}
    assert {path.name for path in (finished / "adapter").iterdir()} == expected
    for path in finished.glob("*/*.json"):
        assert re.findall(r'"/[^"]+"', path.read_text()) == [], path
    curves = {"base.logs", "adapter.logs"}  # beside the runs, where TensorBoard is installed
    assert {path.name for path in finished.iterdir()} - curves == {"base", "adapter"}


@pytest.mark.parametrize("options", [["--data_dir", "nowhere"], []])
def test_a_user_error_ends_the_program_with_one_message(start, tmp_path, options):
    process = start(tmp_path, PYTHON, "--dataset", "peta", *options)
    assert process.returncode == 1
    said = process.stderr.strip().splitlines()[-1]
    assert said.startswith("train.py: error: `data_dir` must be a folder, got ")
    assert ("nowhere'. " if options else "None. ") in said
    assert "Traceback" not in process.stderr
    assert list(tmp_path.iterdir()) == []


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, "ended before its first epoch"
        time.sleep(0.01)


def loads_whole(folder: Path) -> int:
    """How many epochs a run has behind it; fails when any part of it cannot be read."""
    model, loading = ClearModel.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    processor = ClearProcessor.from_pretrained(folder, trust_remote_code=True)
    assert processor.schema.num_attributes == ClearConfig.from_pretrained(folder).num_labels
    json.loads((folder / "training_args.json").read_text())
    return len(json.loads((folder / "metrics.json").read_text())["epochs"])


@pytest.mark.slow
def test_kills_at_random_moments_leave_a_whole_run_or_none(repository, environment, tmp_path):
    # A few crops and no pause between epochs: most of the time goes into writing.
    options = json.dumps({**OPTIONS, "train_size": 2, "validation_size": 2})
    command = [sys.executable, str(repository / "train.py"), "--dataset", "synthetic"]
    command += ["--dataset_options", options, "--batch_size", "2", "--epochs", "100000"]
    command += ["--train_split", "train+validation", "--output_dir", "run", "--num_workers", "0"]
    output, moments = tmp_path / "run", random.Random(0)
    partial = tmp_path / ".run.partial"
    unfinished = 0
    for attempt in range(8):
        log = (tmp_path / "log").open("w")
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        wait_for(output if attempt < 4 else partial, process)
        time.sleep(moments.uniform(0, 1.5) if attempt < 4 else moments.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        log.close()
        unfinished += partial.exists()
        if output.exists():
            assert loads_whole(output) >= 1
    assert unfinished >= 2
    command[command.index("100000")] = "2"
    check(
        subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    )
    assert loads_whole(output) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"run", "log"}


@pytest.mark.slow
def test_two_processes_run_both_stages(start, environment, tmp_path, monkeypatch):
    # 50 crops, 26 to validate on: the last batches are not full, and are shared unequally.
    options = json.dumps({**OPTIONS, "train_size": 50, "validation_size": 26})
    usual = ("--dataset", "synthetic", "--dataset_options", options, "--batch_size", 8)
    check(start(tmp_path, TORCHRUN, *usual, "--epochs", 2, "--output_dir", "base"))
    stage = ("--stage", "retrieval", "--checkpoint", "base", "--query_kind", "hard")
    check(start(tmp_path, TORCHRUN, *usual, *stage, "--epochs", 2, "--output_dir", "adapter"))
    for name in ("base", "adapter"):
        assert (
            json.loads((tmp_path / name / "training_args.json").read_text())["num_processes"] == 2
        )
        assert len(json.loads((tmp_path / name / "metrics.json").read_text())["epochs"]) == 2
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", environment["HF_DATASETS_CACHE"])
    check_scores(tmp_path / "base", options)


def check_scores(folder: Path, options: str) -> None:
    """The best score on record is what one process finds for the saved model."""
    settings = TrainingSettings(dataset="synthetic", dataset_options=options)
    model = ClearModel.from_pretrained(folder).eval()
    processor = ClearProcessor.from_pretrained(folder, trust_remote_code=True)
    crops = PersonCrops(settings.load_rows("validation"), processor)
    pixel_values = torch.stack([crops[index]["pixel_values"] for index in range(len(crops))])
    with torch.no_grad():
        logits = model(pixel_values=pixel_values).logits
    columns = processor.schema.evaluated_indices
    scores = recognition_scores(logits, crops.labels.numpy(), columns)
    epochs = json.loads((folder / "metrics.json").read_text())["epochs"]
    best = max(epochs, key=lambda record: record["mean_accuracy"])
    for name in ("mean_accuracy", "instance_f1"):
        assert best[name] == pytest.approx(scores[name], abs=1e-6)
