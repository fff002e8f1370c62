"""The benchmark of training: its tables add up, and its loader gives every crop it counts."""

import argparse
import re

import pytest

from clear_par.scripts import benchmark_training as benchmark


def test_the_report_sets_the_loader_against_the_fastest_model(monkeypatch, capsys):
    rates = {"float32": (20.0, 900.0, 500.0), "bfloat16": (40.0, 800.0, 500.0)}
    monkeypatch.setattr(benchmark, "in_new_process", lambda variant: rates[variant.dtype])
    monkeypatch.setattr(benchmark, "time_loader", lambda crops, batch, count, workers: 100.0)
    options = ["--presets", "clear-tiny", "--workers", "0", "--crops", "12", "--steps", "3"]
    benchmark.main(options)
    text = capsys.readouterr().out
    assert "| clear-tiny | 128 x 64 | float32 | 20.0 | 900 | 500 |" in text
    assert "times clear-tiny in bfloat16" in text
    assert re.findall(r"\| (decoded|held in memory) \| 0 \| 100 \| 2\.5 \|", text) == [
        "decoded",
        "held in memory",
    ]


def test_the_loader_reads_the_samples_and_counts_them(monkeypatch):
    times = iter([0.0, 2.0])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(times))
    rows, schema = benchmark.crops_of(argparse.Namespace(dataset=None))
    assert len(rows) == 12
    processor = benchmark.ClearProcessor.for_schema(schema, 32, 16)
    crops = benchmark.PersonCrops(rows, processor, benchmark.Augmentation(), cache=False)
    assert benchmark.time_loader(crops, 4, 20, 0) == 10.0  # 20 crops after the first batch, in 2 s


def test_numbers_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--steps", "0"])
    assert "must be at least 1" in capsys.readouterr().err
