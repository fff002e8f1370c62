"""Reports against plain loops; pictures are pictures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clear_par.attributes_clear import AttributeSchema
from clear_par.datasets_scripts.retrieval_protocols import RetrievalSplit, retrieval_split
from clear_par.metrics.person_attribute_recognition.person_attribute_recognition import (
    recognition_metrics,
)
from clear_par.reporting.embedding_map import draw_map, plane
from clear_par.reporting.figures import (
    draw_attribute_precision,
    draw_attributes,
    draw_recognition,
    draw_retrieval,
)
from clear_par.reporting.markdown import percent, recognition_notes, report_markdown
from clear_par.reporting.recognition import attribute_rows, attribute_sets, recognition_report
from clear_par.reporting.reliability import draw_reliability
from clear_par.reporting.retrieval import (
    chosen_queries,
    cosine_scorer,
    likelihood_scorer,
    plotted_queries,
    random_scorer,
    retrieval_report,
    score_blocks,
    single_attribute_rows,
)


@pytest.fixture(scope="module")
def schema(repository) -> AttributeSchema:
    return AttributeSchema.from_json(repository / "datasets_scripts" / "schemas" / "peta.json")


@pytest.fixture(scope="module")
def recognised(schema) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, -100], size=(40, schema.num_attributes), p=[0.6, 0.3, 0.1])
    return rng.random(labels.shape), labels


def test_peta_is_reported_as_35_evaluated_44_colours_and_26_others(schema):
    sets = attribute_sets(schema)
    assert {name: len(columns) for name, columns in sets.items()} == {
        "evaluated": 35,
        "colours": 44,
        "other": 26,
    }
    assert sorted(column for columns in sets.values() for column in columns) == list(range(105))


def test_a_colour_that_papers_evaluate_counts_once(schema):
    schema = replace(schema, evaluated=("hairLong", "upperBodyBlack"))
    sets = attribute_sets(schema)
    assert {name: len(columns) for name, columns in sets.items()} == {
        "evaluated": 2,
        "colours": 43,
        "other": 60,
    }
    assert sorted(column for columns in sets.values() for column in columns) == list(range(105))


def test_attribute_rows_equal_counting_by_hand(schema, recognised):
    probabilities, labels = recognised
    for column, row in enumerate(attribute_rows(probabilities, labels, schema)):
        cells = list(zip(probabilities[:, column], labels[:, column], strict=True))
        hits = [p > 0.5 for p, label in cells if label == 1]
        rejections = [p <= 0.5 for p, label in cells if label == 0]
        assert row["positives"] == len(hits)
        assert row["known"] == len(hits) + len(rejections)
        expected = (sum(hits) / len(hits) + sum(rejections) / len(rejections)) / 2
        assert row["mean_accuracy"] == pytest.approx(expected)


def test_set_metrics_are_means_of_their_attributes(schema, recognised):
    report = recognition_report(*recognised, schema)
    rows = [row["mean_accuracy"] for row in report["attributes"] if row["evaluated"]]
    assert report["sets"]["evaluated"]["mean_accuracy"] == pytest.approx(np.mean(rows))


def test_nothing_known_is_none_and_a_dash(schema, recognised):
    probabilities, labels = recognised
    labels = labels.copy()
    labels[:, 3] = -100
    assert attribute_rows(probabilities, labels, schema)[3]["mean_accuracy"] is None
    assert percent(None) == "-"
    assert attribute_rows(probabilities, labels, schema)[3]["average_precision"] is None
    report = recognition_report(probabilities, labels, schema, np.full(105, 0.3))
    json.dumps(report, allow_nan=False)


def test_calibrated_metrics_stand_beside_those_at_a_half(schema, recognised):
    probabilities, labels = recognised
    thresholds = np.linspace(0.2, 0.8, 105)
    report = recognition_report(probabilities, labels, schema, thresholds)
    plain = recognition_report(probabilities, labels, schema)
    columns = attribute_sets(schema)["colours"]
    expected = recognition_metrics(
        probabilities[:, columns], labels[:, columns], thresholds[columns]
    )
    found = report["sets"]["colours"]
    assert found["calibrated"].items() >= {k: expected[k] for k in list(expected)[:5]}.items()
    assert {k: v for k, v in found.items() if k != "calibrated"} == plain["sets"]["colours"]
    for scores in (found, found["calibrated"]):
        for name, (low, high) in scores["intervals"].items():
            assert low < scores[name] < high, name
    for column, row in enumerate(report["attributes"]):
        assert row["threshold"] == thresholds[column]
        (alone,) = attribute_rows(
            probabilities[:, [column]],
            labels[:, [column]],
            AttributeSchema.from_names([row["attribute"]]),
            thresholds[[column]],
        )
        assert row["calibrated"] == alone["calibrated"]
        said = probabilities[:, column] > thresholds[column]
        assert row["calibrated"]["positive_recall"] == said[labels[:, column] == 1].mean()
    persons = np.repeat(np.arange(10), 4)
    by_person = recognition_report(probabilities, labels, schema, groups=persons)
    assert by_person["sets"]["colours"]["intervals"] != plain["sets"]["colours"]["intervals"]


def test_reliability_of_a_set_is_counted_over_all_its_cells(schema, recognised):
    probabilities, labels = recognised
    report = recognition_report(probabilities, labels, schema)
    columns = attribute_sets(schema)["other"]
    cells = list(zip(probabilities[:, columns].flat, labels[:, columns].flat, strict=True))
    bins = report["reliability"]["other"]
    for number in range(10):
        inside = [(p, label) for p, label in cells if label >= 0 and int(p * 10) == number]
        assert bins["count"][number] == len(inside)
        p, share = np.mean(inside, axis=0)
        assert bins["mean_probability"][number] == pytest.approx(p)
        assert bins["positive_share"][number] == pytest.approx(share)
    errors = [row["expected_calibration_error"] for row in report["attributes"]]
    expected = np.mean([errors[column] for column in columns])
    assert report["sets"]["other"]["expected_calibration_error"] == pytest.approx(expected)
    few = recognition_report(np.full((2, 105), 0.32), np.ones((2, 105)), schema)
    assert few["reliability"]["other"]["positive_share"][:4] == [None, None, None, 1.0]


def test_upar_is_ranked_by_a_harmonic_mean(schema, recognised):
    report = recognition_report(*recognised, replace(schema, name="upar"))
    scores = report["sets"]["evaluated"]
    expected = 2 / (1 / scores["mean_accuracy"] + 1 / scores["instance_f1"])
    assert report["upar_track1"]["upar_track1_score"] == pytest.approx(expected)
    assert "upar_track1" not in recognition_report(*recognised, schema)
    (note,) = (n for n in recognition_notes({**report, "interval_by": "images"}) if "UPAR" in n)
    assert f"{100 * expected:.2f}" in note


@pytest.fixture(scope="module")
def gallery():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, size=(30, 4))
    return retrieval_split(labels), torch.from_numpy(rng.normal(size=(30, 4)))


def test_likelihood_is_the_product_over_attributes(gallery):
    split, logits = gallery
    queries = split.queries.astype(int)
    queries[2, 1] = -100  # unsaid: any value will do
    scores = likelihood_scorer(queries, logits)(np.array([0, 2]))
    for row, query in zip(scores, queries[[0, 2]], strict=True):
        for score, image in zip(row, torch.sigmoid(logits).tolist(), strict=True):
            factors = {1: lambda p: p, 0: lambda p: 1 - p, -100: lambda p: 1.0}
            product = np.prod([factors[q](p) for p, q in zip(image, query, strict=True)])
            assert np.exp(score) == pytest.approx(product)


def test_attributes_asked_for_alone_are_known_and_told_apart():
    schema = AttributeSchema.from_names(["a", "b", "c", "d"])
    labels = np.array([[1, 1, 0, 1], [0, 1, 0, -100], [1, 1, 0, 0]])
    columns, rows = single_attribute_rows(labels, schema)
    assert columns == [0]
    assert rows.tolist() == [[1, -100, -100, -100]]


def test_plotted_queries_are_the_most_frequent_with_their_first_images():
    categories = np.array([0, 1, 1, 2, 1, 2, 1])
    split = RetrievalSplit(np.eye(3, dtype=np.int8), categories)
    found = plotted_queries(split, count=2, images=3)
    assert [numbers.tolist() for numbers in found] == [[1, 1, 2, 4], [2, 3, 5]]


def test_the_plane_keeps_neighbours_together_and_repeats_itself(tmp_path):
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)
    groups = [centre + 0.05 * rng.normal(size=(12, 8)) for centre in centres]
    points = plane(np.concatenate(groups)).reshape(3, 12, 2)
    spread = np.linalg.norm(points - points.mean(axis=1, keepdims=True), axis=2).max()
    between = [np.linalg.norm(points[a].mean(0) - points[b].mean(0)) for a, b in ((0, 1), (1, 2))]
    assert min(between) > spread
    assert np.array_equal(plane(np.concatenate(groups)).reshape(3, 12, 2), points)
    draw_map(centres, groups, ["a man", "a woman " * 30, "x"], tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.size[0] > 500


def test_without_scikit_learn_the_map_says_what_to_install(monkeypatch):
    monkeypatch.setattr("clear_par.reporting.embedding_map.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"`figures` must be false without scikit-learn.*pip inst"):
        plane(np.eye(4))


def test_attribute_precision_is_drawn_best_first_with_its_chance(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "clear_par.reporting.figures.save_figure", lambda figure, path: drawn.append(figure)
    )
    rows = [
        {"attribute": f"a{n}", "share": n / 20, "average_precision": n / 10} for n in range(1, 8)
    ]
    draw_attribute_precision(rows, tmp_path / "x.png")
    labels = [[text.get_text() for text in axis.get_yticklabels()] for axis in drawn[0].axes]
    assert labels == [["a7", "a6", "a5"], ["a4", "a3", "a2"], ["a1"]]
    widths = [bar.get_width() for axis in drawn[0].axes for bar in axis.patches]
    assert widths == pytest.approx([70, 60, 50, 40, 30, 20, 10])
    ticks = [x for axis in drawn[0].axes for x, _ in axis.collections[0].get_offsets()]
    assert ticks == pytest.approx([35, 30, 25, 20, 15, 10, 5])


def test_blocks_cover_every_query_once_with_its_relevance(gallery, monkeypatch):
    split, _ = gallery
    monkeypatch.setattr("clear_par.reporting.retrieval.BLOCK", 3)
    blocks = list(score_blocks(random_scorer(30), split))
    relevance = np.concatenate([block for _, block in blocks])
    assert np.array_equal(relevance, split.relevance())
    assert all(scores.shape == block.shape for scores, block in blocks)


def test_perfect_scores_rank_perfectly_and_random_ones_do_not(gallery):
    split, _ = gallery
    embeds = torch.eye(len(split.queries))
    perfect = cosine_scorer(embeds, embeds[torch.from_numpy(split.gallery_categories)])
    unseen = np.zeros(len(split.queries), dtype=bool)
    unseen[:2] = True
    rows = retrieval_report({"perfect": perfect, "random": random_scorer(30)}, split, unseen)
    assert [(row["method"], row["queries"]) for row in rows] == [
        ("perfect", "all"),
        ("perfect", "unseen"),
        ("random", "all"),
        ("random", "unseen"),
    ]
    assert rows[0]["mean_average_precision"] == rows[0]["rank_1"] == 1.0
    assert rows[1]["num_queries"] == 2
    assert rows[2]["mean_average_precision"] < 0.6


def test_markdown_holds_every_table(schema, recognised, gallery):
    split, _ = gallery
    unseen = np.ones(len(split.queries), dtype=bool)
    report = {
        **dict.fromkeys(("checkpoint", "commit", "date", "hardware", "command"), "x"),
        **{"dataset": "peta", "config_name": None, "split": "test", "num_images": 40},
        "recognition": {**recognition_report(*recognised, schema), "interval_by": "images"},
        "retrieval": {
            **{"num_queries": 9, "num_unseen": 9, "gallery_size": 30, "query_kind": "hard"},
            "query_attributes": list("abcd"),
            "seen_split": "train",
            "rows": retrieval_report({"random": random_scorer(30)}, split, unseen),
        },
    }
    lines = report_markdown(report).splitlines()
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert widths.count(11) == 2 + 3  # recognition: header, rule, three sets
    assert widths.count(9) == 2 + 2  # retrieval: header, rule, all and unseen
    assert widths.count(10) == 2 + 105
    assert any("1,106" in line for line in lines)
    assert any("vectors of 4 attributes" in n and "9 of them unseen in `train`" in n for n in lines)
    for other in ({"config_name": "sal"}, {"config_name": "partition1"}, {"split": "train"}):
        assert "1,106" not in report_markdown({**report, **other})
    partial = {"mean_average_precision": 0.125, "rank_1": 0.5, "num_queries": 7}
    report["retrieval"]["partial"] = [{"method": "m", "size": size, **partial} for size in (1, 2)]
    lines = report_markdown(report).splitlines()
    assert "| ranking by | 1 (7 queries) | 2 (7 queries) |" in lines
    assert "| m | 12.50 / 50.00 | 12.50 / 50.00 |" in lines

    report["recognition"] = {
        **recognition_report(*recognised, schema, np.full(105, 0.25)),
        "interval_by": "persons",
        "calibration": {"criterion": "f1", "data": "peta validation, 40 images"},
    }
    text = report_markdown(report)
    widths = [line.count("|") for line in text.splitlines() if line.startswith("|")]
    assert widths.count(11) == 2 + 2 * 3  # at 0.5 and calibrated
    assert widths.count(13) == 2 + 105
    assert "largest F1 on peta validation, 40 images." in text
    assert "95 % of 1,000 bootstrap resamples of the persons" in text
    scores = report["recognition"]["sets"]["evaluated"]["calibrated"]
    low, high = scores["intervals"]["mean_accuracy"]
    start = f"| evaluated (35) | calibrated | {percent(scores['mean_accuracy'])} | {100 * low:.1f}"
    assert f"{start} to {100 * high:.1f} |" in text


def test_pictures_are_whole_and_leave_nothing_beside_them(schema, recognised, tmp_path):
    crop = Image.new("L", (30, 70), 90)
    draw_attributes(attribute_rows(*recognised, schema), tmp_path / "attributes.png")
    draw_retrieval(["a man"], [[(crop, True, "1"), (crop, None, "2")]], tmp_path / "top.png")
    draw_recognition([(crop, [("hat", False)])] * 5, tmp_path / "recognition.png")
    report = recognition_report(*recognised, schema)
    errors = dict.fromkeys(report["reliability"], 0.1)
    draw_reliability(report["reliability"], errors, tmp_path / "reliability.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "attributes.png",
        "recognition.png",
        "reliability.png",
        "top.png",
    ]
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 200


def test_chosen_queries_go_from_frequent_to_rare_and_say_something():
    labels = np.repeat(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), [9, 2, 5, 7], axis=0)
    split = retrieval_split(labels)
    assert chosen_queries(split, count=2).tolist() == [
        3,
        2,
    ]  # 7 and 5 images; "nothing" is left out
    assert chosen_queries(split, count=5).tolist() == [3, 2, 1]
