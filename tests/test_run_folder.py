"""The folder of a run: what it tells, and what a kill at any moment leaves of it."""

import json
import multiprocessing
import re
import shutil
import sys
from dataclasses import fields
from itertools import count
from os import _exit
from pathlib import Path

import pytest

from clear_par.training import run_folder
from clear_par.training.settings import TrainingSettings, public_name


def test_public_names_have_no_folder_of_this_machine(monkeypatch):
    assert public_name("/home/someone/models/mini") == "mini"
    assert public_name("runs/clear") == "runs/clear"
    assert public_name("owner/model") == "owner/model"
    assert [public_name(value) for value in (None, 3, True)] == [None, 3, True]
    settings = TrainingSettings(
        data_dir="/secret/data",
        output_dir="/secret/run",
        checkpoint="/secret/base",
        text_model="/secret/text",
        text_source="/secret/source",
        base_name="/secret/name",
        dataset_options='{"list_file": "/secret/list", "train_size": 4}',
    )
    monkeypatch.setenv("PATH", "")  # no git here: the commit is unknown, the run goes on
    record = run_folder.public_settings(settings, 2)
    assert "secret" not in json.dumps(record)
    assert record["dataset_options"] == {"list_file": "list", "train_size": 4}
    assert (record["num_processes"], record["commit"]) == (2, None)
    assert {field.name for field in fields(TrainingSettings)} <= record.keys()


def test_commit_is_that_of_the_checkout():
    commit = run_folder.running_commit()
    assert commit is None or re.fullmatch(r"[\w.-]+", commit)


# ---- the folder of a run ----------------------------------------------------------------------

FILES = ("model.safetensors", "config.json", "training_args.json", "metrics.json")


def plain_curve(history: list[dict], path: Path, score: str) -> None:
    path.write_bytes(b"curve " + json.dumps(history).encode())


def write_version(output: Path, version: int) -> None:
    """A run whose every file names the version."""

    def save(folder: Path) -> None:
        for name in FILES[:2]:
            (folder / name).write_text(f'"{version}"')

    history = [{"epoch": version, "loss": 1.0, "score": 0.5}]
    run_folder.write_run(save, output, {"version": version}, history, "score")


def read_version(output: Path) -> int:
    """The one version that all files of a run name; fails for a mixed or partial run."""
    versions = [int(json.loads((output / name).read_text())) for name in FILES[:2]]
    versions.append(json.loads((output / "training_args.json").read_text())["version"])
    versions.append(json.loads((output / "metrics.json").read_text())["epochs"][0]["epoch"])
    versions.append(json.loads((output / "training_curve.png").read_bytes()[6:])[0]["epoch"])
    assert len(set(versions)) == 1
    assert {path.name for path in output.iterdir()} == {*FILES, "training_curve.png"}
    return versions[0]


def die_at(event_number: int, work, *arguments) -> None:
    """Do the work, and end the process, with nothing cleaned up, before the n-th file access."""
    numbers = count(1)

    def hook(event: str, args: tuple) -> None:
        is_file_event = event.startswith(("os.", "shutil.")) or event == "open"
        if is_file_event and next(numbers) == event_number:
            _exit(9)

    sys.addaudithook(hook)
    work(*arguments)
    _exit(0)


def killed_at(event_number: int, work, *arguments) -> bool:
    """Whether the work, in a process of its own, was ended before it was done."""
    arguments = (event_number, work, *arguments)
    process = multiprocessing.get_context("fork").Process(target=die_at, args=arguments)
    process.start()
    process.join()
    assert process.exitcode in (0, 9)
    return process.exitcode == 9


def test_a_kill_at_any_file_access_leaves_a_whole_run_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "draw_curve", plain_curve)
    seen, output = set(), tmp_path / "run"
    for event_number in count(1):
        for folder in tmp_path.iterdir():
            shutil.rmtree(folder)
        write_version(output, 1)
        killed = killed_at(event_number, write_version, output, 2)
        found = read_version(output) if output.exists() else None
        run_folder.prepare_folder(output)
        assert read_version(output) == (found or 2)  # none: the new one was whole, and is put back
        assert [path.name for path in tmp_path.iterdir()] == ["run"]
        write_version(output, 3)
        assert read_version(output) == 3
        seen.add(found)
        if not killed:
            break
    assert seen == {1, None, 2}
    assert event_number > 20


def test_a_kill_in_the_first_run_leaves_a_whole_run_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "draw_curve", plain_curve)
    seen, output = set(), tmp_path / "run"
    for event_number in count(1):
        shutil.rmtree(output, ignore_errors=True)
        killed = killed_at(event_number, write_version, output, 1)
        found = read_version(output) if output.exists() else None
        run_folder.prepare_folder(output)
        assert (read_version(output) if output.exists() else None) == found
        assert {path.name for path in tmp_path.iterdir()} <= {"run"}
        seen.add(found)
        if not killed:
            break
    assert seen == {None, 1}


def test_a_kill_while_records_are_written_leaves_each_file_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "draw_curve", plain_curve)
    output = tmp_path / "run"
    history = [{"epoch": 1, "loss": 1.0, "score": 0.5}, {"epoch": 2, "loss": 0.5, "score": 0.4}]
    lengths = set()
    for event_number in count(1):
        write_version(output, 1)
        killed = killed_at(
            event_number, run_folder.write_records, output, {"version": 1}, history, "score"
        )
        metrics = json.loads((output / "metrics.json").read_text())["epochs"]
        assert metrics == history[: len(metrics)]
        lengths.add(len(metrics))
        assert json.loads((output / "training_args.json").read_text()) == {"version": 1}
        run_folder.prepare_folder(output)  # still taken for a run
        if not killed:
            break
    assert lengths == {1, 2}


def test_a_record_that_is_half_written_does_not_take_the_place_of_the_last(tmp_path, monkeypatch):
    path, write = tmp_path / "metrics.json", Path.write_text
    run_folder.write_json(path, {"epoch": 1})

    def write_half(path: Path, text: str, **options) -> None:
        write(path, text[: len(text) // 2], **options)
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(OSError, match="disk full"):
        run_folder.write_json(path, {"epoch": 2})
    assert json.loads(path.read_text()) == {"epoch": 1}


def test_foreign_folders_and_files_are_refused_and_stay(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for output, what in ((tmp_path, "holds other files"), (tmp_path / "thesis.txt", "is a file")):
        with pytest.raises(ValueError, match=f"`output_dir` must be new, empty .* {what}"):
            run_folder.prepare_folder(output)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    run_folder.prepare_folder(tmp_path / "not" / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
