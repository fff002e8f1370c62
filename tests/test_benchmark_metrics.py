"""The benchmark of the retrieval metrics: its gallery is like UPAR's, its report is true."""

import re

import numpy as np
import pytest

from clear_par.metrics.person_retrieval.person_retrieval import retrieval_metrics
from clear_par.scripts import benchmark_metrics as benchmark


def test_every_query_has_an_answer_and_many_have_one():
    answer = benchmark.answers(np.random.default_rng(0), 346, 3340)
    counts = np.bincount(answer, minlength=346)
    assert (len(answer), counts.min()) == (3340, 1)
    assert np.median(counts) <= 5 < counts.mean() < counts.max() / 10


def test_blocks_are_the_whole_matrix_in_parts():
    rng = np.random.default_rng(1)
    queries, images = benchmark.unit_vectors(rng, 7, 16), benchmark.unit_vectors(rng, 20, 16)
    assert np.linalg.norm(queries, axis=1) == pytest.approx(np.ones(7), abs=1e-6)
    answer = benchmark.answers(rng, 7, 20)
    parts = list(benchmark.blocks(queries, images, answer, 3))
    assert [len(scores) for scores, _ in parts] == [3, 3, 1]
    assert parts[0][0].dtype == np.float32
    whole = queries @ images.T, np.arange(7)[:, None] == answer
    assert retrieval_metrics(parts) == pytest.approx(retrieval_metrics([whole]), abs=1e-6)


def test_report_gives_seconds_memory_and_scores(capsys):
    benchmark.main(["--queries", "40", "--gallery", "300", "--width", "32", "--block", "16"])
    size, seconds, memory, scores = capsys.readouterr().out.strip().split("\n")
    assert size == "40 queries x 300 images, 32 wide, blocks of 16"
    assert re.fullmatch(r"scores and metrics: \d+\.\d s; intervals: \d+\.\d s", seconds)
    peak, libraries = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) MB", memory))
    assert 50 < libraries <= peak
    mean, low, high = map(float, re.search(r"mAP (\S+) % \((\S+) to (\S+)\)", scores).groups())
    assert 0 < low < mean < high < 100


def test_sizes_that_make_no_sense_are_refused(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--queries", "5", "--gallery", "4"])
    assert "`--gallery` at least `--queries`" in capsys.readouterr().err
