"""The comparison of kept features with the backbone in every step, on a micro base."""

import json
from pathlib import Path

import pytest

from clear_par import train
from clear_par.scripts import benchmark_cached_training as benchmark


@pytest.fixture
def options(make_settings):
    train.main(make_settings(epochs=1, output_dir="base"))
    sizes = {"train_size": 48, "validation_size": 24, "test_size": 8, "width": 32, "height": 64}
    settings = {"query_kind": "hard", "embed_dim": 16, "hidden_dims": [8]}
    values = {"checkpoint": "base", "dataset_options": json.dumps(sizes)}
    values |= {"settings": json.dumps(settings), "steps": "2", "kept_steps": "3"}
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def test_the_ways_are_measured_and_their_losses_agree(options, capsys):
    rows = benchmark.main([*options, "--batch_sizes", "8", "16"])
    assert [row["batch_size"] for row in rows] == [8, 16]
    for row in rows:
        assert row["largest_difference"] < 1e-5
        assert row["plain"] > 0
        assert "bare" not in row  # hard queries have no text
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("| 8 |") or line.startswith("| 16 |") for line in lines) == 2


@pytest.mark.slow
def test_the_default_checkpoint_trains_on_kept_features_as_without(repository, tmp_path):
    settings = {"embed_dim": 64, "hidden_dims": [32], "cache_images": True}
    arguments = ["--checkpoint", str(repository), "--batch_sizes", "32", "--steps", "4"]
    arguments += ["--dataset_options", '{"train_size": 100, "validation_size": 20}']
    (row,) = benchmark.main([*arguments, "--settings", json.dumps(settings)])
    assert row["largest_difference"] < 1e-4
    assert row["kept"] > 2 * row["plain"] > 2 * row["bare"] > 0


def test_the_default_checkpoint_is_that_of_the_repository(repository):
    assert Path(benchmark.parse_arguments([]).checkpoint) == repository
