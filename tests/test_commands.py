"""demo.py and evaluate_clear.py on the default checkpoint, as a user runs them."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from clear_par import evaluate_clear


@pytest.fixture(scope="module")
def run(repository, tmp_path_factory):
    """A function that runs one of the commands and returns the finished process."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=repository,
            env={**os.environ, "HF_DATASETS_CACHE": str(cache)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def test_demo_prints_both_tasks_and_draws_them(run, tmp_path):
    result = run("demo.py", "--gallery", 20, "--output", tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "00011.jpg" in result.stdout
    assert result.stdout.count("asked and true") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recognition.png", "retrieval.png"]


def test_demo_takes_crops_of_ones_own(run, tmp_path):
    Image.new("CMYK", (40, 90)).save(tmp_path / "crop.jpg")
    result = run("demo.py", "--images", tmp_path, "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr[-2000:]
    assert "crop.jpg" in result.stdout


def test_demo_says_what_is_wrong_with_a_folder(run, tmp_path):
    result = run("demo.py", "--images", tmp_path, "--output", tmp_path / "out")
    assert result.returncode != 0
    assert "`--images` must hold images" in result.stderr


def test_report_on_drawn_crops(run, tmp_path):
    result = run(
        "evaluate_clear.py",
        *("--dataset", "synthetic", "--output_dir", tmp_path / "report"),
        *("--dataset_options", '{"train_size": 4, "validation_size": 4, "test_size": 24}'),
    )
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["num_images"] == 24
    assert report["recognition"]["sets"]["evaluated"]["num_attributes"] == 35
    assert report["recognition"]["sets"]["evaluated"]["mean_accuracy"] > 0.5  # better than chance
    assert report["commit"] != ""
    assert (tmp_path / "report" / "report.md").read_text().startswith("# . on synthetic test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint", "no/such/folder"), "no/such/folder"),
        (("--dataset", "petta"), "`dataset` must be"),
        (("--dataset", "peta", "--data_dir", "no/such/folder"), "`data_dir` must be a folder"),
        (("--chekpoint", "."), "--chekpoint"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(
    repository, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit) as stop:
        evaluate_clear.run([*arguments, "--output_dir", str(tmp_path / "report")])
    assert stop.value.code not in (0, None)
    assert message in f"{stop.value.code}{capsys.readouterr().err}"
    assert not (tmp_path / "report").exists()
