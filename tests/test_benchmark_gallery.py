import json

import numpy as np
import pytest

from clear_par.scripts import benchmark_gallery


@pytest.fixture
def in_this_process(monkeypatch):
    """Compare by numpy without a process of its own."""

    def latency(folder, options, queries):
        np.save(folder / "queries.npy", queries)
        return benchmark_gallery.numpy_only(folder, options.width)

    monkeypatch.setattr(benchmark_gallery, "numpy_latency", latency)


def test_every_number_is_measured_and_nothing_is_left(in_this_process, tmp_path, capsys):
    sizes = ["--rows", "600", "--width", "16", "--clusters", "20", "--commit", "250"]
    counts = ["--queries", "6", "--exact-queries", "2", "--recall", "1"]
    places = ["--folder", tmp_path, "--output", tmp_path / "report.json"]
    benchmark_gallery.main([*sizes, *counts, *map(str, places)])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rows"] == 600
    assert report["engine_exact"]["recall"] == 1
    assert 0.5 < report["attribute_queries"]["recall"] <= 1
    assert len(report["attribute_queries"]["recall_filtered"]) == 3
    assert report["numpy_one_query_ms"] > 0
    assert "| attribute queries |" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_attribute_queries_lie_off_the_crops():
    rng = np.random.default_rng(0)
    drawn = benchmark_gallery.Drawn.make(50, 64, rng)
    crops, chances = drawn.crops(2_000, rng)
    for vectors in (crops, drawn.image_queries(20, rng), drawn.attribute_queries(20, rng)):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    image = (drawn.image_queries(20, rng) @ crops.T).max(axis=1).mean()
    attribute = (drawn.attribute_queries(20, rng) @ crops.T).max(axis=1).mean()
    assert attribute < image - 0.1
    shares = (chances > 0.5).mean(axis=0)
    np.testing.assert_allclose(shares, benchmark_gallery.SHARES, atol=0.2)
