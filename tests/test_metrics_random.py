"""Both metrics against plain loops on many small random cases: ties, empty rows, unknown labels."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st
from sklearn import metrics as sklearn_metrics

from clear_par.metrics.person_attribute_recognition.person_attribute_recognition import (
    label_metrics,
    recognition_metrics,
)
from clear_par.metrics.person_retrieval.person_retrieval import (
    mean_over_queries,
    query_metrics,
    retrieval_metrics,
)

MANY = settings(max_examples=200, deadline=None, derandomize=True, database=None)
UNKNOWN = -100


def exactly(expected):
    return pytest.approx(expected, rel=0, abs=1e-12, nan_ok=True)


def matrix(shape, values):
    """A NumPy matrix of some of the values."""
    return numpy_st.arrays(np.float64, shape, elements=st.sampled_from(values))


# ---- recognition --------------------------------------------------------------------------------


@st.composite
def recognition_cases(draw):
    """Probabilities and thresholds in tenths, so that many are equal, and labels."""
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 4)))
    tenths = [i / 10 for i in range(11)]
    labels = draw(matrix(shape, [0, 1, UNKNOWN]))
    assume((labels != UNKNOWN).any())
    one_for_all = draw(st.booleans())
    threshold = draw(
        st.sampled_from(tenths[:10]) if one_for_all else matrix(shape[1:], tenths[:10])
    )
    return draw(matrix(shape, tenths)), labels, threshold


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def harmonic(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second else 0.0


def labels_by_loops(probabilities, labels, thresholds) -> dict[str, list[float]]:
    """Each attribute: what is counted cell by cell; nan where nothing is known."""
    names = ("mean_accuracy", "accuracy", "precision", "recall", "f1", "average_precision")
    columns = {f"label_{name}": [] for name in ("known", "positives", *names)}
    for attribute, threshold in enumerate(thresholds):
        cells = [
            (p[attribute], truth[attribute])
            for p, truth in zip(probabilities, labels, strict=True)
            if truth[attribute] != UNKNOWN
        ]
        hits = sum(1 for p, truth in cells if truth == 1 and p > threshold)
        rejections = sum(1 for p, truth in cells if truth == 0 and p <= threshold)
        positives = sum(1 for _, truth in cells if truth == 1)
        said = sum(1 for p, _ in cells if p > threshold)
        recall, precision = share(hits, positives), share(hits, said)
        mean = (recall + share(rejections, len(cells) - positives)) / 2
        scores = [mean, share(hits + rejections, len(cells)), precision, recall]
        scores += [harmonic(precision, recall), average_precision(cells, positives)]
        scores = scores if cells else [np.nan] * 6
        for column, value in zip(columns.values(), (len(cells), positives, *scores), strict=True):
            column.append(value)
    return columns


def average_precision(cells, positives: int) -> float:
    """The sum over all thresholds of precision times the recall that is gained there."""
    total, found_before = 0.0, 0
    for threshold in sorted({p for p, _ in cells}, reverse=True):
        said = [truth for p, truth in cells if p >= threshold]
        total += sum(said) / len(said) * share(sum(said) - found_before, positives)
        found_before = sum(said)
    return total if positives else np.nan


def instances_by_loops(probabilities, labels, thresholds) -> list[float]:
    """Accuracy, precision, recall and F1 over the images with a known label."""
    rows = []
    for p, truth in zip(probabilities, labels, strict=True):
        known = [i for i, value in enumerate(truth) if value != UNKNOWN]
        true = {i for i in known if truth[i] == 1}
        said = {i for i in known if p[i] > thresholds[i]}
        if known:
            rows.append([share(len(true & said), len(x)) for x in (true | said, said, true)])
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [*means, harmonic(*means[1:])]


@MANY
@given(recognition_cases())
def test_recognition_equals_loops(case):
    probabilities, labels, threshold = case
    thresholds = np.broadcast_to(threshold, labels.shape[1]).tolist()
    columns = labels_by_loops(probabilities.tolist(), labels.tolist(), thresholds)
    per_label = label_metrics(probabilities, labels, threshold)
    assert per_label.keys() == columns.keys()
    for name, values in columns.items():
        assert per_label[name].tolist() == exactly(values), name
    *means, label_means = recognition_metrics(probabilities, labels, threshold).values()
    expected = instances_by_loops(probabilities.tolist(), labels.tolist(), thresholds)
    assert means == exactly([np.nanmean(columns["label_mean_accuracy"]), *expected])
    assert label_means == exactly(columns["label_mean_accuracy"])


def test_labels_equal_scikit_learn():
    random = np.random.default_rng(6)
    probabilities, labels = random.integers(0, 101, (300, 8)) / 100, random.random((300, 8)) < 0.2
    labels = labels.astype(int)
    labels[:, 0] = 0  # nothing to find
    probabilities[:, 1] = 0.1  # nothing said
    result = label_metrics(probabilities, labels)
    said, options = probabilities > 0.5, {"average": None, "zero_division": 0}
    for name in ("precision", "recall", "f1"):
        expected = getattr(sklearn_metrics, f"{name}_score")(labels, said, **options)
        assert result[f"label_{name}"].tolist() == exactly(expected.tolist())
    expected = sklearn_metrics.average_precision_score(
        labels[:, 1:], probabilities[:, 1:], average=None
    )
    assert result["label_average_precision"].tolist() == exactly([np.nan, *expected])
    assert result["label_accuracy"].tolist() == exactly((said == labels).mean(axis=0).tolist())


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ([0.5, 0.5, 0.5], r"`threshold` must be one number or \(2,\), got shape \(3,\)"),
        ([[0.5, 0.5]], r"got shape \(1, 2\)"),
        ([0.5, 1.0], r"`threshold` must be in \[0, 1\), got 0.5 to 1.0"),
        ([0.5, np.nan], r"`threshold` must be in \[0, 1\)"),
    ],
)
def test_thresholds_that_fit_no_attribute_are_refused(threshold, message):
    for metrics in (recognition_metrics, label_metrics):
        with pytest.raises(ValueError, match=message):
            metrics([[0.1, 0.2]], [[0, 1]], threshold)


# ---- retrieval ----------------------------------------------------------------------------------


@st.composite
def retrieval_cases(draw):
    """Scores of few levels, so that many are equal; some queries have nothing relevant."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 12)))
    scores = draw(matrix(shape, range(draw(st.integers(1, 8)))))
    relevance = draw(matrix(shape, [0, 1]))
    assume(relevance.any())
    return scores, relevance, draw(st.integers(0, shape[0]))


def ranking_by_loops(scores, relevance) -> list[float]:
    """One query: both average precisions, inverse negative penalty, Rank-1, -5, -10."""
    ranks = []
    for i, relevant in enumerate(relevance):
        if relevant:
            nearer = [j for j in range(len(scores)) if scores[j] > scores[i]]
            earlier = [j for j in range(i) if scores[j] == scores[i]]
            ranks.append(1 + len(nearer) + len(earlier))
    ranks.sort()
    rectangular = trapezoid = 0.0
    for found, rank in enumerate(ranks, start=1):
        above = (found - 1) / (rank - 1) if rank > 1 else 1.0
        rectangular += found / rank / len(ranks)
        trapezoid += (found / rank + above) / 2 / len(ranks)
    hits = [float(ranks[0] <= k) for k in (1, 5, 10)]
    return [rectangular, trapezoid, len(ranks) / ranks[-1], *hits]


@MANY
@given(retrieval_cases())
def test_retrieval_equals_loops(case):
    scores, relevance, cut = case
    blocks = [(scores[:cut], relevance[:cut]), (scores[cut:], relevance[cut:])]
    per_query = query_metrics(blocks)
    rows = [
        ranking_by_loops(s, r) if any(r) else [np.nan] * 6
        for s, r in zip(scores.tolist(), relevance.tolist(), strict=True)
    ]
    for name, column in zip(per_query, zip(*rows, strict=True), strict=True):
        assert per_query[name].tolist() == exactly(list(column)), name
    counted = [row for row in rows if not np.isnan(row[0])]
    result = retrieval_metrics(blocks)
    assert result == mean_over_queries(per_query)
    expected = [*np.mean(counted, axis=0), len(counted), len(rows) - len(counted)]
    assert list(result.values()) == exactly(expected)
