"""Both metrics against public reference values, values worked out by hand, and plain loops."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from clear_par.metrics.person_attribute_recognition.person_attribute_recognition import (
    recognition_metrics,
)
from clear_par.metrics.person_retrieval import person_retrieval
from clear_par.metrics.person_retrieval.person_retrieval import (
    mean_over_queries,
    query_metrics,
    retrieval_metrics,
)

# Outputs of Rethinking_of_PAR's, SAL's and ASMR's own metric code on random inputs.
GOLDEN = json.loads((Path(__file__).parent / "fixtures" / "metrics_golden.json").read_text())

LABELS = [[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0]]
PROBABILITIES = [[0.9, 0.1, 0.2, 0.6], [0.5, 0.4, 0.8, 0.7], [0.3, 0.2, 0.1, 0.4]]

SCORES = [[0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.3, 0.4], [0.5, 0.5, 0.5, 0.9]]
RELEVANCE = [[0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 1, 0]]


def exactly(expected):
    return pytest.approx(expected, rel=0, abs=1e-12)


# Recognition


def assert_recognition(result, expected):
    assert result.keys() == expected.keys()
    for name, value in expected.items():
        assert result[name] == exactly(value), name


@pytest.mark.parametrize("case", [name for name in GOLDEN if name.startswith("par_")])
def test_recognition_equals_public_code(case):
    golden = GOLDEN[case]
    result = recognition_metrics(golden["prob"], golden["gt"])
    assert result["mean_accuracy"] == exactly(golden["ma"])
    assert result["instance_accuracy"] == exactly(golden["instance_acc"])
    assert result["instance_precision"] == exactly(golden["instance_prec"])
    assert result["instance_recall"] == exactly(golden["instance_recall"])
    assert result["instance_f1"] == exactly(golden["instance_f1"])
    assert result["label_mean_accuracy"] == exactly(golden["label_ma"])


def test_recognition_by_hand():
    # Predicted: {0, 3}, {2, 3}, {}; the 0.5 is not above the threshold.
    assert_recognition(
        recognition_metrics(PROBABILITIES, LABELS),
        {
            "mean_accuracy": 2.75 / 4,
            "instance_accuracy": (1 / 3 + 1 + 0) / 3,
            "instance_precision": (1 / 2 + 1 + 0) / 3,
            "instance_recall": (1 / 2 + 1 + 0) / 3,
            "instance_f1": 0.5,
            # The second attribute has no positives: its positive half is 0, not skipped.
            "label_mean_accuracy": [0.75, 0.5, 0.75, 0.75],
        },
    )


def test_unknown_cell_is_neither_positive_nor_negative():
    labels = np.array(LABELS)
    labels[0, 3] = -100  # predicted, and until now a false positive
    assert_recognition(
        recognition_metrics(PROBABILITIES, labels),
        {
            "mean_accuracy": 3.0 / 4,
            "instance_accuracy": (1 / 2 + 1 + 0) / 3,
            "instance_precision": (1 + 1 + 0) / 3,
            "instance_recall": (1 / 2 + 1 + 0) / 3,
            "instance_f1": 2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2),
            "label_mean_accuracy": [0.75, 0.5, 0.75, 1.0],
        },
    )


def test_images_and_attributes_without_known_label_are_left_out():
    expected = recognition_metrics(PROBABILITIES, LABELS)
    probabilities = np.pad(PROBABILITIES, ((0, 1), (0, 1)), constant_values=0.9)
    labels = np.pad(LABELS, ((0, 1), (0, 1)), constant_values=-100)
    result = recognition_metrics(probabilities, labels)
    assert np.isnan(result["label_mean_accuracy"].pop())
    assert_recognition(result, expected)


def recognition_by_loops(probabilities, labels, threshold):
    """Counts cell by cell; no attribute or image of the test is without known labels."""
    num_images, num_attributes = len(labels), len(labels[0])
    label_mean_accuracy = []
    for attribute in range(num_attributes):
        rates = []
        for value in (1, 0):
            images = [i for i in range(num_images) if labels[i][attribute] == value]
            right = [i for i in images if (probabilities[i][attribute] > threshold) == value]
            rates.append(len(right) / len(images) if images else 0.0)
        label_mean_accuracy.append(sum(rates) / 2)
    sums = [0.0, 0.0, 0.0]
    for image in range(num_images):
        known = [a for a in range(num_attributes) if labels[image][a] != -100]
        true = {a for a in known if labels[image][a] == 1}
        predicted = {a for a in known if probabilities[image][a] > threshold}
        for i, whole in enumerate((true | predicted, predicted, true)):
            sums[i] += len(true & predicted) / len(whole) if whole else 0.0
    accuracy, precision, recall = (total / num_images for total in sums)
    f1 = 2 * precision * recall / (precision + recall)
    return [sum(label_mean_accuracy) / num_attributes, accuracy, precision, recall, f1]


@pytest.mark.parametrize("threshold", [0.5, 0.25])
def test_recognition_equals_loops(threshold):
    random = np.random.default_rng(0)
    probabilities = random.integers(0, 101, (60, 9)) / 100
    labels = random.choice([0, 1, -100], (60, 9), p=[0.6, 0.2, 0.2])
    labels[:, 0] = 0
    result = recognition_metrics(probabilities, labels, threshold)
    expected = recognition_by_loops(probabilities.tolist(), labels.tolist(), threshold)
    assert list(result.values())[:5] == exactly(expected)


def test_perfect_and_empty_predictions():
    perfect = recognition_metrics(np.eye(4), np.eye(4, dtype=bool))
    assert list(perfect.values()) == [1.0, 1.0, 1.0, 1.0, 1.0, [1.0] * 4]
    nothing = recognition_metrics(np.zeros((4, 4)), np.eye(4))
    assert list(nothing.values()) == [0.5, 0.0, 0.0, 0.0, 0.0, [0.5] * 4]


@pytest.mark.parametrize(
    ("probabilities", "labels", "threshold", "message"),
    [
        ([[0.1, 0.2]], [[0, 1, 0]], 0.5, r"must both be \(images, attributes\), got \(1, 2\)"),
        ([0.1, 0.2], [0, 1], 0.5, r"must both be \(images, attributes\)"),
        (
            [[0.1, 0.2], [0.3]],
            [[0, 1], [1, 0]],
            0.5,
            "`predictions` must be numbers in rows of one",
        ),
        ([["high"]], [[1]], 0.5, "`predictions` must be numbers"),
        ([[1.2, 0.2]], [[0, 1]], 0.5, r"`predictions` must be probabilities in \[0, 1\], got 0.2"),
        ([[-3.0, 0.2]], [[0, 1]], 0.5, "apply the sigmoid"),
        ([[np.nan, 0.2]], [[0, 1]], 0.5, "`predictions` must be probabilities"),
        ([[0.1, 0.2]], [[0, 2]], 0.5, r"`references` must be 0, 1 or -100 \(unknown\), got 2"),
        ([[0.1, 0.2]], [[0, np.nan]], 0.5, "`references` must be 0, 1 or -100"),
        ([[0.1, 0.2]], [[-100, -100]], 0.5, "`references` must hold at least one known label"),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0.5, "`references` must hold at least one known"),
        ([[0.1, 0.2]], [[0, 1]], 1.5, r"`threshold` must be in \[0, 1\), got 1.5"),
    ],
)
def test_recognition_refuses(probabilities, labels, threshold, message):
    with pytest.raises(ValueError, match=message):
        recognition_metrics(probabilities, labels, threshold)


# Retrieval


def golden_retrieval():
    case = GOLDEN["retrieval_sal"]
    return -np.array(case["dist"]), np.equal.outer(case["q"], case["g"])


def test_retrieval_equals_public_code():
    scores, relevance = golden_retrieval()
    result = retrieval_metrics([(scores, relevance)])
    assert result["mean_average_precision"] == exactly(GOLDEN["retrieval_sal"]["mAP"])
    # The public code keeps its match curve in single precision.
    expected = pytest.approx(GOLDEN["retrieval_sal"]["cmc"][:3], abs=1e-7)
    assert [result["rank_1"], result["rank_5"], result["rank_10"]] == expected
    assert (result["num_queries"], result["num_queries_without_relevant"]) == (5, 1)
    # ASMR divides by all queries, also by the one that has nothing to find.
    over_all = result["mean_average_precision_trapezoid"] * 5 / 6
    assert over_all == exactly(GOLDEN["retrieval_asmr_same_input"]["mAP"])


def test_retrieval_by_hand():
    # Relevant ranks: {2, 4}, {1}, {2, 4}; the third query's equal scores keep the gallery order.
    assert retrieval_metrics([(SCORES, RELEVANCE)]) == exactly(
        {
            "mean_average_precision": (1 / 2 + 1 + 1 / 2) / 3,
            "mean_average_precision_trapezoid": (1 / 3 + 1 + 1 / 3) / 3,
            "mean_inverse_negative_penalty": (2 / 4 + 1 + 2 / 4) / 3,
            "rank_1": 1 / 3,
            "rank_5": 1.0,
            "rank_10": 1.0,
            "num_queries": 3,
            "num_queries_without_relevant": 0,
        }
    )


def retrieval_by_loops(scores, relevance):
    """One row per query: both average precisions, inverse negative penalty, Rank-1, -5, -10."""
    rows = []
    for query_scores, query_relevance in zip(scores, relevance, strict=True):
        order = sorted(range(len(query_scores)), key=lambda i: (-query_scores[i], i))
        ranks = [rank for rank, i in enumerate(order, start=1) if query_relevance[i]]
        if not ranks:
            continue
        rectangular = trapezoid = 0.0
        for found, rank in enumerate(ranks, start=1):
            above = (found - 1) / (rank - 1) if rank > 1 else 1.0
            rectangular += found / rank / len(ranks)
            trapezoid += (above + found / rank) / 2 / len(ranks)
        hits = [float(ranks[0] <= k) for k in (1, 5, 10)]
        rows.append([rectangular, trapezoid, len(ranks) / ranks[-1], *hits])
    return rows


@pytest.mark.parametrize("levels", [4, 10**6], ids=["ties", "no ties"])
def test_retrieval_equals_loops(levels):
    random = np.random.default_rng(1)
    scores = random.integers(0, levels, (40, 90)) / levels
    relevance = random.random((40, 90)) < 0.03
    rows = retrieval_by_loops(scores.tolist(), relevance.tolist())
    result = retrieval_metrics([(scores, relevance)])
    assert list(result.values())[:6] == exactly(np.mean(rows, axis=0).tolist())
    assert result["num_queries"] == len(rows) < 40


def test_average_precision_equals_scikit_learn():
    sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    random = np.random.default_rng(2)
    scores, relevance = random.random((30, 80)), random.random((30, 80)) < 0.2
    expected = [
        sklearn_metrics.average_precision_score(row_relevance, row_scores)
        for row_relevance, row_scores in zip(relevance, scores, strict=True)
    ]
    assert query_metrics([(scores, relevance)])["average_precision"].tolist() == exactly(expected)


def test_gallery_order_matters_only_for_equal_scores():
    random = np.random.default_rng(3)
    scores, relevance = random.random((10, 50)), random.random((10, 50)) < 0.2
    order = random.permutation(50)
    shuffled = retrieval_metrics([(scores[:, order], relevance[:, order])])
    assert shuffled == exactly(retrieval_metrics([(scores, relevance)]))

    equal = np.zeros((1, 4))
    first = retrieval_metrics([(equal, [[1, 0, 0, 0]])])
    last = retrieval_metrics([(equal, [[0, 0, 0, 1]])])
    assert (first["mean_average_precision"], last["mean_average_precision"]) == (1.0, 0.25)


def test_blocks_and_parts_change_nothing(monkeypatch):
    random = np.random.default_rng(4)
    scores, relevance = random.random((23, 70)), random.random((23, 70)) < 0.05
    whole = retrieval_metrics([(scores, relevance)])
    starts = (0, 1, 9, 9, 23)  # one of the blocks is empty
    rows = [slice(*pair) for pair in itertools.pairwise(starts)]
    assert retrieval_metrics((scores[part], relevance[part]) for part in rows) == whole
    for part_cells in (1, 200):
        monkeypatch.setattr(person_retrieval, "PART_CELLS", part_cells)
        assert retrieval_metrics([(scores, relevance)]) == whole


def test_mean_over_a_part_of_the_queries():
    per_query = query_metrics([golden_retrieval()])
    assert np.isnan(per_query["average_precision"]).tolist() == [False] * 5 + [True]
    is_wanted = np.array([True, False, True, False, False, True])
    part = mean_over_queries({name: values[is_wanted] for name, values in per_query.items()})
    scores, relevance = golden_retrieval()
    assert part == retrieval_metrics([(scores[is_wanted], relevance[is_wanted])])
    assert (part["num_queries"], part["num_queries_without_relevant"]) == (2, 1)


def test_everything_relevant_is_perfect():
    result = retrieval_metrics([(np.random.default_rng(5).random((3, 10)), np.ones((3, 10)))])
    assert list(result.values()) == [1.0] * 6 + [3, 0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint8])
def test_scores_of_any_number_type(dtype):
    scores = np.array([[0, 1, 100, 127]]).astype(dtype)
    assert retrieval_metrics([(scores, [[0, 1, 0, 0]])])["mean_average_precision"] == exactly(1 / 3)
    # Unsigned zero and the smallest signed value must still sort last.
    lowest = np.array([[np.iinfo(dtype).min if np.issubdtype(dtype, np.integer) else -np.inf, 5]])
    result = retrieval_metrics([(lowest.astype(dtype), [[1, 0]])])
    assert result["mean_average_precision"] == 0.5


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([([[0.1, 0.2]], [[0, 1, 0]])], r"must both be \(queries, gallery\), got \(1, 2\)"),
        ([([0.1, 0.2], [0, 1])], r"must both be \(queries, gallery\)"),
        ([(np.zeros((2, 0)), np.zeros((2, 0)))], r"must both be \(queries, gallery\)"),
        ([([[0.1, 0.2], [0.1]], [[0, 1], [1, 0]])], "`predictions` must have rows of one length"),
        ([([[0.1]], [[1]]), ([[0.1, 0.2]], [[0, 1]])], "`blocks` must share one gallery, got 2"),
        ([([[0.1, np.nan]], [[0, 1]])], "`predictions` must be numbers, got nan"),
        ([([[0.1, 0.2]], [[0, -100]])], "`references` must be 0 or 1, got -100"),
        ([([[0.1, 0.2]], [[0, np.nan]])], "`references` must be 0 or 1, got nan"),
        ([([[0.1, 0.2]], [[0, 0]])], "`references` must mark a relevant gallery image"),
        ([], "`blocks` must hold at least one query"),
        ([(np.zeros((0, 3)), np.zeros((0, 3)))], "`blocks` must hold at least one query"),
    ],
)
def test_retrieval_refuses(blocks, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(blocks)
