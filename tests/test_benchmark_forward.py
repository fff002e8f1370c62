"""The benchmark: operations counted against a formula, and a table that adds up."""

import math

import pytest

from clear_par.configuration_clear import PRESETS, ClearConfig
from clear_par.scripts import benchmark_forward as benchmark

MICRO = {
    **{"image_height": 64, "image_width": 32, "local_embed_dim": 8, "local_window_size": 7},
    **{"local_depths": (1, 2), "local_num_heads": (1, 2), "global_patch_size": 14},
    **{"global_embed_dim": 16, "global_depth": 3, "global_num_heads": 4, "fusion_num_heads": 2},
}


def operations_of(config: ClearConfig) -> int:
    """Two for each multiplication and addition of every matrix product, written out by hand."""
    total = 0
    for i, (depth, grid) in enumerate(zip(config.local_depths, config.local_grids, strict=True)):
        tokens, width, side = math.prod(grid), config.local_widths[i], config.local_window_size
        padded = math.prod(math.ceil(length / side) * side for length in grid)
        channel = 3 * width * tokens**2 + 2 * width**2 * tokens
        attention = padded * (4 * width**2 + 2 * side**2 * width)
        total += channel + depth * (attention + tokens * 8 * width**2)
        total += tokens * width * (2 * width if i else 3 * config.local_patch_size**2)
    size, tokens = config.global_patch_size, 1
    tokens += (config.image_height // size) * (config.image_width // size)
    width = config.global_embed_dim
    total += (tokens - 1) * width * 3 * size**2
    total += config.global_depth * (tokens * 12 * width**2 + 2 * tokens**2 * width)
    dim = config.fusion_dim
    for keys in (1 + math.prod(config.local_grids[-1]), tokens):
        total += 2 * dim**2 + 2 * keys * dim**2 + 2 * keys * dim
    return 2 * (total + config.feature_dim * config.num_labels)


def test_operations_are_those_of_the_formula():
    config = ClearConfig(**MICRO, num_labels=5)
    assert config.fusion_dim == config.local_widths[-1] == 16
    assert benchmark.count_operations(config) == operations_of(config)


def test_the_table_holds_every_variant_and_adds_up(monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "micro", MICRO)
    monkeypatch.setattr(benchmark, "MATRIX", 64)
    benchmark.main(["--preset", "micro", "--batch-size", "2", "--runs", "2", "--threads", "1"])
    title, _, head, _, *rows = capsys.readouterr().out.strip().split("\n")
    operations = benchmark.count_operations(ClearConfig(**MICRO)) / 1e9
    assert f"{operations:.2f} GFLOP a crop" in title
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| float32", "1", "eager"],
        ["| bfloat16", "1", "eager"],
    ]
    for row in rows:
        crops, rate, matrix, ratio = map(float, row.strip("| ").split(" | ")[3:])
        assert rate == pytest.approx(crops * operations, rel=0.02, abs=0.1)
        assert ratio == pytest.approx(rate / matrix, rel=0.05, abs=0.05)
    assert head.count("|") == rows[0].count("|")


def test_medians_ignore_one_slow_run():
    variant = benchmark.Variant("float32", 1, False, lambda: None, [0.5, 90.0, 0.5])
    rates = {("float32", 1): 8e9}
    row = benchmark.table([variant], 10**9, 2, rates).split("\n")[-1]
    assert row == "| float32 | 1 | eager | 4.00 | 4.0 | 8.0 | 0.50 |"


def test_numbers_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--runs", "0"])
    assert "`--runs` and `--threads` must be at least 1" in capsys.readouterr().err
