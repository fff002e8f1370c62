"""Intervals against a loop that really resamples rows; challenge scores by hand."""

import numpy as np
import pytest

from clear_par.metrics import bootstrap as bootstrap_module
from clear_par.metrics.bootstrap import Bootstrap, recognition_intervals, retrieval_intervals
from clear_par.metrics.challenge import harmonic_mean, upar_track1_score, upar_track2_score
from clear_par.metrics.person_attribute_recognition.person_attribute_recognition import (
    recognition_metrics,
)
from clear_par.metrics.person_retrieval.person_retrieval import mean_over_queries, query_metrics

DRAWS = Bootstrap(num_draws=40, seed=7)


@pytest.fixture(scope="module")
def recognised() -> tuple[np.ndarray, np.ndarray]:
    """Few images and rare attributes: some resamples lose every positive, or all that is known."""
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, -100], size=(25, 5), p=[0.6, 0.2, 0.2])
    labels[:, 1] = 0
    labels[3:, 2] = -100
    labels[:, 3] = 0
    labels[9, 3] = 1
    labels[4] = -100  # an image without known labels
    return random.integers(0, 11, labels.shape) / 10, labels


def draws_of(num_units: int) -> list[list[int]]:
    """The units of each resample, drawn one after the other as documented."""
    rng = np.random.default_rng(DRAWS.seed)
    return [rng.integers(num_units, size=num_units).tolist() for _ in range(DRAWS.num_draws)]


def middle(values: list[float]) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile, by interpolation between neighbours in order."""
    ordered, bounds = sorted(values), []
    for share in (0.025, 0.975):
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        bounds.append(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
    return tuple(bounds)


def assert_equal_intervals(found: dict, resampled: list[dict]):
    for name, interval in found.items():
        expected = middle([scores[name] for scores in resampled])
        assert interval == pytest.approx(expected, abs=1e-12), name
        assert interval[0] < interval[1], name


@pytest.mark.parametrize("threshold", [0.5, np.array([0.5, 0.1, 0.3, 0.2, 0.6])])
def test_images_drawn_one_by_one(recognised, threshold):
    probabilities, labels = recognised
    resampled = [
        recognition_metrics(probabilities[rows], labels[rows], threshold)
        for rows in draws_of(len(labels))
    ]
    found = recognition_intervals(probabilities, labels, threshold, bootstrap=DRAWS)
    names = list(resampled[0])
    assert list(found) == names[:5]
    assert_equal_intervals(found, resampled)


def test_persons_are_drawn_with_all_their_images(recognised):
    probabilities, labels = recognised
    persons = np.random.default_rng(1).integers(50, 58, len(labels))
    members = [np.flatnonzero(persons == person) for person in sorted(set(persons.tolist()))]
    resampled = []
    for drawn in draws_of(len(members)):
        rows = np.concatenate([members[i] for i in drawn])
        resampled.append(recognition_metrics(probabilities[rows], labels[rows]))
    found = recognition_intervals(probabilities, labels, groups=persons, bootstrap=DRAWS)
    assert_equal_intervals(found, resampled)
    alone = recognition_intervals(probabilities, labels, groups=range(25), bootstrap=DRAWS)
    assert alone == recognition_intervals(probabilities, labels, bootstrap=DRAWS)


def test_queries_that_have_an_answer_are_drawn():
    random = np.random.default_rng(2)
    relevance = random.random((30, 40)) < 0.05
    assert 0 < relevance.any(axis=1).sum() < 30
    per_query = query_metrics([(random.random((30, 40)), relevance)])
    kept = np.flatnonzero(relevance.any(axis=1))
    resampled = [
        mean_over_queries({name: values[kept[drawn]] for name, values in per_query.items()})
        for drawn in draws_of(len(kept))
    ]
    found = retrieval_intervals(per_query, DRAWS)
    assert found.keys() == resampled[0].keys() - {"num_queries", "num_queries_without_relevant"}
    assert_equal_intervals(found, resampled)


def test_blocks_change_nothing_and_seeds_do(recognised, monkeypatch):
    whole = recognition_intervals(*recognised, bootstrap=DRAWS)
    other = recognition_intervals(*recognised, bootstrap=Bootstrap(num_draws=40, seed=8))
    assert other != whole
    monkeypatch.setattr(bootstrap_module, "BLOCK_CELLS", 100)
    small = recognition_intervals(*recognised, bootstrap=DRAWS)
    for name, interval in whole.items():
        assert small[name] == pytest.approx(interval, abs=1e-14)


def test_interval_of_a_share_is_the_binomial_one():
    """200 images, one attribute, all positive, 60 % found: recall is a binomial share."""
    probabilities = np.repeat([0.9, 0.1], [120, 80])[:, None]
    found = recognition_intervals(probabilities, np.ones((200, 1)), bootstrap=Bootstrap(4000))
    deviation = (0.6 * 0.4 / 200) ** 0.5
    expected = (0.6 - 1.96 * deviation, 0.6 + 1.96 * deviation)
    assert found["instance_recall"] == pytest.approx(expected, abs=0.006)
    narrow = Bootstrap(4000, level=0.5)
    half = recognition_intervals(probabilities, np.ones((200, 1)), bootstrap=narrow)
    expected = (0.6 - 0.674 * deviation, 0.6 + 0.674 * deviation)
    assert half["instance_recall"] == pytest.approx(expected, abs=0.006)


def test_wrong_settings_are_refused(recognised):
    with pytest.raises(ValueError, match="`num_draws` must be at least 1, got 0"):
        Bootstrap(num_draws=0)
    with pytest.raises(ValueError, match="`level` must lie between 0 and 1, got 95"):
        Bootstrap(level=95)
    with pytest.raises(ValueError, match=r"`groups` must be \(25,\), got \(2,\)"):
        recognition_intervals(*recognised, groups=[1, 2])
    with pytest.raises(ValueError, match="`per_query` must hold a query with a relevant"):
        retrieval_intervals({"average_precision": np.array([np.nan])})


def test_challenge_scores_by_hand():
    recognition = {"mean_accuracy": 0.8, "instance_f1": 0.6, "instance_recall": 0.1}
    assert upar_track1_score(recognition) == {
        "upar_track1_score": pytest.approx(0.96 / 1.4),
        "mean_accuracy": 0.8,
        "instance_f1": 0.6,
    }
    retrieval = {"mean_average_precision": 0.2, "mean_average_precision_trapezoid": 0.1}
    assert upar_track2_score({**retrieval, "rank_1": 0.3, "rank_5": 0.9}) == {
        "upar_track2_score": pytest.approx(0.12 / 0.5),
        "mean_average_precision": 0.2,
        "rank_1": 0.3,
    }
    assert harmonic_mean(0.0, 0.0) == 0.0
