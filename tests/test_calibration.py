"""Thresholds against every cut tried in exact fractions; calibration error against counting."""

import doctest
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from clear_par.metrics import bootstrap, calibration, challenge
from clear_par.metrics.calibration import (
    calibrated_thresholds,
    expected_calibration_error,
    reliability,
)
from clear_par.metrics.person_attribute_recognition.person_attribute_recognition import (
    label_metrics,
)

MANY = settings(max_examples=200, deadline=None, derandomize=True, database=None)
CRITERIA = ["balanced_accuracy", "f1"]


@st.composite
def cases(draw):
    """Probabilities of few levels, so that many are equal, 0 and 1 among them; labels."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 3)))
    levels = draw(
        st.sampled_from([[0.0, 0.5, 1.0], [0.1, 0.4, 0.6, 0.9], [i / 8 for i in range(9)]])
    )
    probabilities = draw(numpy_st.arrays(np.float64, shape, elements=st.sampled_from(levels)))
    labels = draw(numpy_st.arrays(np.int64, shape, elements=st.sampled_from([0, 1, 1, 0, -100])))
    return probabilities, labels


def score(cells, threshold: float, criterion: str) -> Fraction:
    """The criterion of one attribute, as a fraction."""
    positives = sum(1 for _, label in cells if label == 1)
    hits = sum(1 for p, label in cells if label == 1 and p > threshold)
    false = sum(1 for p, label in cells if label == 0 and p > threshold)
    if criterion == "f1":
        return Fraction(2 * hits, hits + false + positives)
    negatives = len(cells) - positives
    return (Fraction(hits, positives) + Fraction(negatives - false, negatives)) / 2


def best_by_loops(cells, criterion: str) -> float:
    """Try one threshold for each way of deciding: 0.5 where it does, else the middle."""
    if {label for _, label in cells} != {0, 1}:
        return 0.5
    edges = sorted({0.0, 1.0, *(p for p, _ in cells)})
    candidates = []
    for low, high in itertools.pairwise(edges):
        threshold = 0.5 if low <= 0.5 < high else (low + high) / 2
        candidates.append((-score(cells, threshold, criterion), abs(threshold - 0.5), threshold))
    return min(candidates)[2]


@MANY
@given(cases(), st.sampled_from(CRITERIA))
def test_thresholds_equal_trying_every_cut(case, criterion):
    probabilities, labels = case
    found = calibrated_thresholds(probabilities, labels, criterion)
    for column, threshold in enumerate(found):
        known = labels[:, column] != -100
        cells = list(
            zip(probabilities[known, column].tolist(), labels[known, column].tolist(), strict=True)
        )
        assert threshold == best_by_loops(cells, criterion)


@pytest.mark.parametrize(
    ("criterion", "metric"), [("balanced_accuracy", "label_mean_accuracy"), ("f1", "label_f1")]
)
def test_no_threshold_of_a_fine_grid_is_better(criterion, metric):
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, -100], size=(400, 6), p=[0.7, 0.2, 0.1])
    probabilities = np.clip(random.normal(0.25 + 0.2 * (labels == 1), 0.15), 0, 1)
    thresholds = calibrated_thresholds(probabilities, labels, criterion)
    best = label_metrics(probabilities, labels, thresholds)[metric]
    grid = [label_metrics(probabilities, labels, i / 500)[metric] for i in range(500)]
    assert (best >= np.max(grid, axis=0) - 1e-12).all()
    assert (best > label_metrics(probabilities, labels)[metric]).all()


def test_thresholds_by_hand():
    # Separable; one class only; 0.5 as good as any; neighbours without a number between them.
    near = np.nextafter(0.25, 1)  # half way to `nearer` is rounded up to that
    nearer = np.nextafter(near, 1)
    probabilities = [[0.1, 0.9, 0.3, near], [0.2, 0.8, 0.7, nearer], [0.3, 0.7, 0.8, nearer]]
    labels = [[0, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    found = calibrated_thresholds(probabilities, labels).tolist()
    assert found == [pytest.approx(0.15), 0.5, 0.5, near]
    assert (np.array(probabilities)[:, 3] > found[3]).tolist() == [False, True, True]


def test_what_is_unknown_has_no_influence():
    random = np.random.default_rng(1)
    labels = random.choice([0, 1, -100], size=(60, 4))
    probabilities = random.random(labels.shape)
    changed = np.where(labels == -100, random.random(labels.shape), probabilities)
    for function in (calibrated_thresholds, expected_calibration_error):
        assert np.array_equal(function(probabilities, labels), function(changed, labels))


# ---- calibration error --------------------------------------------------------------------------


def error_by_loops(cells, num_bins: int) -> float:
    total = 0.0
    for number in range(num_bins):
        inside = [
            (p, label)
            for p, label in cells
            if int(p * num_bins) == number or (number == num_bins - 1 and p == 1)
        ]
        if inside:
            predicted = sum(p for p, _ in inside) / len(inside)
            true = sum(label for _, label in inside) / len(inside)
            total += len(inside) / len(cells) * abs(predicted - true)
    return total


@pytest.mark.parametrize("num_bins", [1, 4, 10])
def test_calibration_error_equals_counting(num_bins):
    random = np.random.default_rng(2)
    labels = random.choice([0, 1, -100], size=(90, 5))
    labels[:, 4] = -100
    probabilities = random.integers(0, 21, labels.shape) / 20  # the edges of bins, 0 and 1
    found = expected_calibration_error(probabilities, labels, num_bins)
    assert np.isnan(found[4])
    for column in range(4):
        known = labels[:, column] >= 0
        cells = list(zip(probabilities[known, column], labels[known, column], strict=True))
        assert found[column] == pytest.approx(error_by_loops(cells, num_bins), abs=1e-12)
    bins = reliability(probabilities, labels, num_bins)
    assert bins["count"].sum() == (labels >= 0).sum()
    assert bins["positives"].sum() == (labels == 1).sum()
    assert bins["probability"].sum() == pytest.approx(probabilities[labels >= 0].sum())


def test_probabilities_that_are_true_have_a_small_error_and_extremes_a_large_one():
    random = np.random.default_rng(3)
    probabilities = random.random((20000, 1))
    labels = (random.random((20000, 1)) < probabilities).astype(int)
    assert expected_calibration_error(probabilities, labels)[0] < 0.015
    overconfident = (probabilities > 0.5).astype(float)
    assert expected_calibration_error(overconfident, labels)[0] == pytest.approx(0.25, abs=0.01)


# ---- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("function", [calibrated_thresholds, expected_calibration_error])
@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        ([[0.1, 0.2]], [[0]], r"must both be \(images, attributes\), got \(1, 2\) and \(1, 1\)"),
        ([0.1], [0], r"must both be \(images, attributes\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), r"must both be \(images, attributes\)"),
        ([[1.5]], [[0]], r"must be in \[0, 1\], got 1.5 to 1.5; apply the sigmoid"),
        ([[np.nan]], [[0]], r"must be in \[0, 1\]"),
    ],
)
def test_wrong_input_is_refused(function, probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        function(probabilities, labels)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match=r"`criterion` must be one of .* got 'accuracy'"):
        calibrated_thresholds([[0.1]], [[0]], "accuracy")
    with pytest.raises(ValueError, match="`num_bins` must be at least 1, got 0"):
        expected_calibration_error([[0.1]], [[0]], 0)


@pytest.mark.parametrize("module", [bootstrap, calibration, challenge])
def test_docstring_examples(module):
    assert doctest.testmod(module).failed == 0
