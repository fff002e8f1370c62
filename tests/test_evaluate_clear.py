"""evaluate_clear.py on a micro checkpoint: every number against plain loops, every error."""

import json
import math
import shlex
import shutil
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from peft import get_peft_model
from PIL import Image
from transformers import BertConfig

from clear_par import evaluate_clear
from clear_par.adapter_config_clear import ClearAdapterConfig
from clear_par.attributes_clear import AttributeSchema
from clear_par.datasets_scripts.person_dataset import load_person_dataset
from clear_par.datasets_scripts.synthetic import SCHEMA_FILE
from clear_par.evaluate_clear import EvaluationSettings
from clear_par.metrics.bootstrap import recognition_intervals
from clear_par.metrics.person_attribute_recognition.person_attribute_recognition import (
    label_metrics,
)
from clear_par.modeling_clear import ClearModel
from clear_par.peft_clear import save_adapter
from clear_par.processing_clear import ClearProcessor
from clear_par.reporting.calibration import require_storable, store_calibration
from clear_par.reporting.figures import draw_retrieval
from clear_par.reporting.markdown import report_markdown
from clear_par.reporting.provenance import command_of
from clear_par.reporting.retrieval import random_scorer
from clear_par.tests.metrics_by_loops import recognition_by_loops, retrieval_by_loops
from clear_par.training.crops import PersonCrops
from clear_par.training.queries import partial_queries

SCHEMA = AttributeSchema.from_json(SCHEMA_FILE)
SIZES = {"train_size": 60, "validation_size": 10, "test_size": 48, "width": 32, "height": 64}
WORDS = "a man woman adult person with long hair wearing shoes sneakers sandals shorts carrying , ."
METHODS = ["CLEAR adapter", "classifier likelihood", "classifier likelihood by choices", "random"]
FILES = ["attributes.png", "reliability.png", "report.json", "report.md", "retrieval.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Checkpoints, adapters and tables of drawn crops; a report is written under a test's own."""
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module", autouse=True)
def _tables(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "tables")
        yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def save_checkpoint(folder, make_micro_config, make_tokenizer):
    """A function that saves a micro model, its processor and an adapter; returns both folders."""

    def save(name: str, schema: AttributeSchema, query_kind: str = "soft+hard", **changes):
        torch.manual_seed(3)
        tokenizer = make_tokenizer(WORDS)
        text_config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        names = dict(enumerate(schema.attributes))
        model = ClearModel(make_micro_config(text_config=text_config, id2label=names, **changes))
        torch.nn.init.normal_(model.classifier.weight, std=0.5)  # else all is close to one half
        base, adapter = folder / name, folder / f"{name}-adapter"
        model.save_pretrained(base)
        processor = ClearProcessor.for_schema(schema, 32, 32, tokenizer)
        processor.save_pretrained(base)
        config = ClearAdapterConfig(embed_dim=16, query_kind=query_kind, schema=schema)
        save_adapter(get_peft_model(model, config), adapter, name)
        return str(base), str(adapter)

    return save


@pytest.fixture(scope="module")
def checkpoint(save_checkpoint) -> tuple[str, str]:
    return save_checkpoint("peta", SCHEMA)


@pytest.fixture(scope="module")
def make_settings(checkpoint, folder):
    def make(**changes) -> EvaluationSettings:
        usual = {"dataset": "synthetic", "dataset_options": json.dumps(SIZES), "batch_size": 20}
        usual["num_partial"] = 30
        usual |= {"checkpoint": checkpoint[0], "adapter": checkpoint[1]}
        return EvaluationSettings(**{**usual, "output_dir": str(folder / "report"), **changes})

    return make


@pytest.fixture(scope="module")
def report(make_settings, folder) -> dict:
    """The report as it is read from its file; NaN and Infinity are not JSON."""
    evaluate_clear.main(make_settings())

    def refuse(constant):
        raise ValueError(constant)

    return json.loads((folder / "report/report.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def rows(report) -> dict[str, datasets.Dataset]:
    return {
        s: load_person_dataset("synthetic", None, s, **SIZES)
        for s in ("train", "validation", "test")
    }


@pytest.fixture(scope="module")
def outputs(checkpoint, rows):
    """Model, processor, probabilities (images, attributes) and image embeddings, one by one."""
    model = ClearModel.from_pretrained(checkpoint[0]).eval()
    model.load_adapter(checkpoint[1])
    processor = ClearProcessor.from_pretrained(checkpoint[0], trust_remote_code=True)
    probabilities, embeds = [], []
    for row in rows["test"]:
        with torch.no_grad():
            output = model(**processor(images=row["image"], return_tensors="pt"))
        probabilities.append([1 / (1 + math.exp(-x)) for x in output.logits[0].tolist()])
        embeds.append(output.image_embeds[0])
    return model, processor, probabilities, torch.stack(embeds)


# ---- what it says -------------------------------------------------------------------------------


def test_report_says_what_was_evaluated_where_and_how(report):
    assert list(report) == [
        *("checkpoint", "adapter", "dataset", "config_name", "dataset_options", "split"),
        *("num_images", "command", "commit", "date", "hardware", "versions"),
        *("recognition", "retrieval"),
    ]
    assert report["checkpoint"] == "peta"  # of a path of this machine, only the last part
    assert report["dataset_options"] == SIZES
    assert report["num_images"] == 48
    assert report["versions"]["torch"] == torch.__version__
    assert "threads" in report["hardware"]
    assert "--checkpoint peta --adapter peta-adapter" in report["command"]


def test_no_file_names_a_place_of_this_machine(report, folder):
    for name in ("report.json", "report.md"):
        assert str(folder) not in (folder / "report" / name).read_text()


def test_command_gives_the_settings_back(make_settings, folder):
    settings = make_settings(
        data_dir=str(folder), checkpoint=".", adapter="adapters/x", output_dir="reports/a b"
    )
    command = shlex.split(command_of(settings))
    assert command[:2] == ["python", "evaluate_clear.py"]
    again = evaluate_clear.parse_settings(command[2:])
    assert again.data_dir == "SYNTHETIC_FOLDER"
    again.data_dir = settings.data_dir
    assert again == settings
    assert str(folder) not in " ".join(command)


def test_set_metrics_equal_plain_loops(report, outputs, rows):
    probabilities, labels = outputs[2], rows["test"]["labels"]
    colours = {a for g in SCHEMA.groups if g.name.endswith("colour") for a in g.options.values()}
    sets = {"evaluated": set(SCHEMA.evaluated), "colours": colours - set(SCHEMA.evaluated)}
    sets["other"] = set(SCHEMA.attributes) - sets["evaluated"] - colours
    assert {n: s["num_attributes"] for n, s in report["recognition"]["sets"].items()} == {
        "evaluated": 35,
        "colours": 44,
        "other": 26,
    }
    for name, members in sets.items():
        columns = [i for i, a in enumerate(SCHEMA.attributes) if a in members]
        expected = recognition_by_loops(probabilities, labels, columns)
        got = report["recognition"]["sets"][name]
        assert {k: got[k] for k in expected} == pytest.approx(expected, abs=1e-6), name


def test_attribute_table_equals_counting_in_label_order(report, outputs, rows):
    table = report["recognition"]["attributes"]
    assert [row["attribute"] for row in table] == list(SCHEMA.attributes)
    for column, row in enumerate(table):
        cells = [
            (p[column] > 0.5, t[column])
            for p, t in zip(outputs[2], rows["test"]["labels"], strict=True)
        ]
        found = [said for said, truth in cells if truth == 1]
        refused = [not said for said, truth in cells if truth == 0]
        assert row["positives"] == len(found)
        for key, hits in (("positive_recall", found), ("negative_recall", refused)):
            assert row[key] == (sum(hits) / len(hits) if hits else None)
        assert (row["mean_accuracy"] is None) == (not found or not refused)
    assert any(row["mean_accuracy"] is None for row in table)  # what a drawing cannot show


# ---- retrieval ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def protocol(rows) -> tuple[list[int], list[tuple], list[tuple], set[tuple]]:
    """Columns, distinct queries, the vector of each gallery image, vectors seen before."""
    labels = {split: table["labels"] for split, table in rows.items()}
    everything = [row for table in labels.values() for row in table]
    columns = [
        i
        for i, name in enumerate(SCHEMA.attributes)
        if name in SCHEMA.evaluated and all(row[i] >= 0 for row in everything)
    ]
    vectors = {s: [tuple(row[c] for c in columns) for row in t] for s, t in labels.items()}
    queries = list(dict.fromkeys(vectors["test"]))
    return columns, queries, vectors["test"], {*vectors["train"], *vectors["validation"]}


def test_protocol_is_one_query_for_each_vector(report, protocol):
    columns, queries, gallery, seen = protocol
    retrieval = report["retrieval"]
    assert retrieval["query_attributes"] == [SCHEMA.attributes[c] for c in columns]
    assert retrieval["num_queries"] == len(queries) > 10
    assert retrieval["num_unseen"] == sum(q not in seen for q in queries) > 5
    assert 0 < retrieval["num_unseen"] < retrieval["num_queries"]
    assert retrieval["gallery_size"] == len(gallery) == 48
    assert retrieval["query_kind"] == "soft+hard"
    assert [(row["method"], row["queries"]) for row in retrieval["rows"]] == [
        (method, queries) for method in METHODS for queries in ("all", "unseen")
    ]


def adapter_scores(outputs, protocol) -> list[list[float]]:
    """Each query by itself through the processor: known on the evaluated columns, else unsaid."""
    model, processor, _, image_embeds = outputs
    scores = []
    for query in protocol[1]:
        labels = [-100] * SCHEMA.num_attributes
        for column, value in zip(protocol[0], query, strict=True):
            labels[column] = value
        with torch.no_grad():
            inputs = processor(labels=[labels], return_tensors="pt")
            embed = model.get_query_features(**inputs)[0]
        scores.append((image_embeds @ embed).tolist())
    return scores


def likelihood_scores(outputs, protocol) -> list[list[float]]:
    """The product of what the classifier gives to each asked value."""
    columns, queries, _, _ = protocol
    return [
        [
            math.prod(p[c] if value else 1 - p[c] for c, value in zip(columns, query, strict=True))
            for p in outputs[2]
        ]
        for query in queries
    ]


@pytest.mark.parametrize(
    ("method", "score"),
    [("CLEAR adapter", adapter_scores), ("classifier likelihood", likelihood_scores)],
)
def test_ranking_equals_plain_loops(report, outputs, protocol, method, score):
    _, queries, gallery, seen = protocol
    scores = score(outputs, protocol)
    kept = {
        "all": range(len(queries)),
        "unseen": [i for i, q in enumerate(queries) if q not in seen],
    }
    for name, numbers in kept.items():
        expected = retrieval_by_loops(
            [scores[i] for i in numbers], [queries[i] for i in numbers], gallery
        )
        row = next(
            r for r in report["retrieval"]["rows"] if (r["method"], r["queries"]) == (method, name)
        )
        assert row["num_queries"] == len(numbers)
        assert {key: row[key] for key in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("size", [1, 3])
def test_partial_queries_equal_plain_loops(report, outputs, rows, size):
    """Drawn as documented, every image with the named attributes relevant, ranked by cosine."""
    model, processor, _, image_embeds = outputs
    labels = rows["test"]["labels"]
    queries, relevance = partial_queries(np.array(labels), SCHEMA, size, 30)
    entry = {(row["method"], row["size"]): row for row in report["retrieval"]["partial"]}
    entry = entry["CLEAR adapter", size]
    assert entry["num_queries"] == len(queries) == 30
    assert entry["num_queries_without_relevant"] == 0
    assert len({tuple(query) for query in queries.tolist()}) == len(queries)
    precisions = []
    for query, relevant in zip(queries, relevance, strict=True):
        named = [c for c, value in enumerate(query) if value == 1]
        assert len(named) == size
        assert all((image[c] >= 0) for image in labels for c in named)
        assert relevant.tolist() == [all(image[c] == 1 for c in named) for image in labels]
        with torch.no_grad():
            inputs = processor(labels=query[None], return_tensors="pt")
            scores = (image_embeds @ model.get_query_features(**inputs)[0]).tolist()
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        ranks = [rank for rank, i in enumerate(order, 1) if relevant[i]]
        precisions.append(sum(n / r for n, r in enumerate(ranks, 1)) / len(ranks))
    mean = sum(precisions) / len(precisions)
    assert entry["mean_average_precision"] == pytest.approx(mean, abs=2e-3)


def test_attributes_are_asked_for_alone(report, rows):
    labels = np.array(rows["test"]["labels"])
    found = report["retrieval"]["attributes"]
    for entry in found:
        column = labels[:, SCHEMA.index(entry["attribute"])]
        assert (column >= 0).all()
        assert 0 < entry["positives"] == (column == 1).sum() < 48
        assert entry["share"] == pytest.approx(entry["positives"] / 48)
        assert 0 < entry["average_precision"] <= 1
    columns = [SCHEMA.index(entry["attribute"]) for entry in found]
    assert columns == sorted(columns)
    assert len(columns) > 40


def test_figures_and_evidence_are_options(make_settings, tmp_path, monkeypatch):
    settings = make_settings(figures=True, fusion_weight=3.0, output_dir=str(tmp_path / "report"))
    report = evaluate_clear.main(settings)
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {*FILES, "attribute_precision.png", "embedding_map.png"}
    text = (tmp_path / "report/report.md").read_text()
    assert all(f"({name})" in text for name in names if name.endswith(".png"))
    assert report["retrieval"]["fusion_weight"] == 3.0
    for entries in ("rows", "partial"):
        methods = list(dict.fromkeys(row["method"] for row in report["retrieval"][entries]))
        assert methods == [METHODS[0], "CLEAR adapter with evidence", *METHODS[1:]]
    monkeypatch.setattr("clear_par.reporting.embedding_map.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="`figures` must be false without scikit-learn"):
        evaluate_clear.load_inputs(settings)
    with pytest.raises(ValueError, match="`fusion_weight` must not be negative"):
        make_settings(fusion_weight=-1.0)


def test_random_ranking_is_what_shuffling_gives(report, protocol):
    _, queries, gallery, _ = protocol
    rng = np.random.default_rng(5)
    draws = [
        retrieval_by_loops(rng.random((len(queries), len(gallery))).tolist(), queries, gallery)
        for _ in range(40)
    ]
    row = next(r for r in report["retrieval"]["rows"] if r["method"] == "random")
    values = [draw["mean_average_precision"] for draw in draws]
    assert abs(row["mean_average_precision"] - np.mean(values)) < 4 * np.std(values)
    first = random_scorer(48)(np.arange(4))
    assert np.array_equal(first, random_scorer(48)(np.arange(4)))
    assert not np.array_equal(first[0], first[1])


@pytest.mark.parametrize("query_kind", ["hard", "words"])
def test_each_kind_of_query_is_reported(save_checkpoint, make_settings, tmp_path, query_kind):
    base, adapter = save_checkpoint(query_kind, SCHEMA, query_kind)
    report = evaluate_clear.main(
        make_settings(checkpoint=base, adapter=adapter, output_dir=str(tmp_path / "report"))
    )
    assert report["retrieval"]["query_kind"] == query_kind


# ---- an adapter of another vocabulary than its base's -------------------------------------------

SHARED = ["personalMale", "carryingBackpack", "accessoryHat"]  # in another order than in SCHEMA


@pytest.fixture(scope="module")
def foreign(save_checkpoint, checkpoint, make_settings, folder) -> tuple[tuple[str, str], dict]:
    """Base and adapter that share three attributes, and the report on the adapter's data set.

    A picture of an earlier report lies in its folder.
    """
    (folder / "foreign").mkdir()
    (folder / "foreign/attributes.png").write_bytes(b"earlier")
    (base, _), adapter = save_checkpoint("three", SCHEMA.subset(SHARED)), checkpoint[1]
    settings = make_settings(
        checkpoint=base, adapter=adapter, fusion_weight=6.0, output_dir=str(folder / "foreign")
    )
    return (base, adapter), evaluate_clear.main(settings)


def test_recognition_of_another_vocabulary_is_left_out_with_the_reason(foreign, folder):
    report = foreign[1]
    assert "recognition" not in report
    reason = "the data set has the 105 attributes of the adapter in their order, not the 3 of"
    assert reason in report["recognition_left_out"]
    assert sorted(path.name for path in (folder / "foreign").iterdir()) == FILES[2:]
    text = (folder / "foreign/report.md").read_text()
    assert reason in text
    assert "knows 3 of the adapter's 105 attributes" in text
    assert "Each attribute" not in text
    assert len(tables_of(text)) == 2
    assert report["retrieval"]["shared"] == {"known": 3, "all": 105}
    methods = list(dict.fromkeys(row["method"] for row in report["retrieval"]["rows"]))
    assert methods == [METHODS[0], "CLEAR adapter with evidence", *METHODS[1:]]


def test_evidence_is_of_the_shared_attributes_alone(foreign, rows, protocol):
    """Exact categories by plain loops: cosine, and the mean of what three sigmoids say."""
    (base, adapter), report = foreign
    columns, queries, gallery, _ = protocol
    model = ClearModel.from_pretrained(base).eval()
    model.load_adapter(adapter)
    processor = ClearProcessor.from_pretrained(base, trust_remote_code=True)
    processor.schema, images = SCHEMA, list(rows["test"]["image"])
    label_rows = np.full((len(queries), 105), -100)
    label_rows[:, columns] = queries
    with torch.no_grad():
        inputs = processor(images=images, labels=label_rows, return_tensors="pt")
        output = model(**inputs)
    cosines = (output.query_embeds @ output.image_embeds.T).tolist()
    asked = [(SHARED.index(n), SCHEMA.index(n)) for n in SHARED if SCHEMA.index(n) in columns]
    assert len(asked) == 3
    scores, likelihoods = [], []
    for row, similar in zip(label_rows, cosines, strict=True):
        evidence = [
            [
                -math.log1p(math.exp(-x[place] if row[column] else x[place]))
                for place, column in asked
            ]
            for x in output.logits.tolist()
        ]
        likelihoods.append([sum(found) for found in evidence])
        scores.append(
            [12 * c + 6 * sum(found) / 3 for c, found in zip(similar, evidence, strict=True)]
        )
    for method, expected in (("CLEAR adapter with evidence", scores), (METHODS[1], likelihoods)):
        (found,) = (
            row
            for row in report["retrieval"]["rows"]
            if (row["method"], row["queries"]) == (method, "all")
        )
        wanted = retrieval_by_loops(expected, queries, gallery)
        assert {key: found[key] for key in wanted} == pytest.approx(wanted, abs=1e-3)


def test_without_a_shared_attribute_the_adapter_ranks_alone(save_checkpoint, make_settings, folder):
    base, _ = save_checkpoint("crowns", AttributeSchema.from_names(["crown"]))
    output = str(folder / "crowns-report")
    settings = make_settings(checkpoint=base, fusion_weight=6.0, output_dir=output)
    report = evaluate_clear.main(settings)
    methods = list(dict.fromkeys(row["method"] for row in report["retrieval"]["rows"]))
    assert methods == ["CLEAR adapter", "random"]  # no attribute is shared: no evidence
    assert report["retrieval"]["shared"] == {"known": 0, "all": 105}


# ---- calibrated thresholds ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(checkpoint, make_settings, folder) -> tuple[Path, dict]:
    """A copy of the checkpoint with thresholds chosen on validation crops, and the report."""
    copy = folder / "calibrated"
    shutil.copytree(checkpoint[0], copy)
    settings = make_settings(
        checkpoint=str(copy),
        adapter=None,
        calibrate_on="validation",
        calibration="f1",
        store_thresholds=True,
        output_dir=str(folder / "calibrated-report"),
    )
    return copy, evaluate_clear.main(settings)


def test_thresholds_are_stored_and_nothing_else_changes(calibrated, checkpoint):
    files = {path.name for path in Path(checkpoint[0]).iterdir()}
    assert {path.name for path in calibrated[0].iterdir()} == files
    for name in files - {"processor_config.json"}:
        assert (calibrated[0] / name).read_bytes() == (Path(checkpoint[0]) / name).read_bytes()
    before, after = (
        json.loads((Path(f) / "processor_config.json").read_text())
        for f in (checkpoint[0], calibrated[0])
    )
    calibration = after.pop("calibration")
    assert after == before
    assert calibration["criterion"] == "f1"
    assert calibration["data"] == "synthetic validation, 10 images"
    assert list(calibration["thresholds"]) == sorted(SCHEMA.attributes)


def test_stored_thresholds_are_the_best_on_the_calibration_split(calibrated, outputs, rows):
    model, processor, _, _ = outputs
    with torch.no_grad():
        inputs = processor(images=list(rows["validation"]["image"]), return_tensors="pt")
        logits = model(**inputs).logits
    probabilities = torch.sigmoid(logits.double()).numpy()
    labels = np.array(rows["validation"]["labels"])
    stored = ClearProcessor.from_pretrained(calibrated[0], trust_remote_code=True).thresholds
    found = label_metrics(probabilities, labels, stored)["label_f1"]
    grid = [label_metrics(probabilities, labels, t)["label_f1"] for t in np.linspace(0, 0.999, 300)]
    has_both = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)
    assert 20 < has_both.sum() < 105
    assert (found >= np.max(grid, axis=0) - 1e-12)[has_both].all()
    assert (stored[~has_both] == 0.5).all()
    assert (stored[has_both] != 0.5).any()


def test_report_shows_both_and_a_later_report_takes_the_stored_ones(
    calibrated, report, make_settings, tmp_path, monkeypatch
):
    for draw in ("draw_attributes", "draw_reliability"):  # their pictures are tested elsewhere
        monkeypatch.setattr(evaluate_clear, draw, lambda *args: None)
    copy, first = calibrated
    second = evaluate_clear.main(
        make_settings(checkpoint=str(copy), adapter=None, output_dir=str(tmp_path / "report"))
    )
    assert second["recognition"] == first["recognition"]
    assert first["recognition"]["calibration"]["data"] == "synthetic validation, 10 images"
    for name, scores in first["recognition"]["sets"].items():
        usual = {key: value for key, value in scores.items() if key != "calibrated"}
        assert usual == report["recognition"]["sets"][name]
        assert scores["calibrated"]["instance_f1"] != usual["instance_f1"]
    tables = tables_of((tmp_path / "report/report.md").read_text())
    assert [row[1] for row in tables[0][1:]] == ["0.5", "calibrated"] * 3
    assert tables[1][0][-3:] == ["threshold", "mA, calibrated", "F1, calibrated"]


def test_intervals_over_persons(outputs, rows):
    """Who is unknown (-1) is a person of their own; where all are, persons are images."""
    model, processor, probabilities, _ = outputs
    logits = torch.logit(torch.tensor(probabilities, dtype=torch.float64))

    def intervals(persons, interval_by="persons"):
        table = rows["test"].remove_columns("person_id").add_column("person_id", persons)
        crops = PersonCrops(table, processor, None, cache=False)
        inputs = evaluate_clear.Inputs(model, processor, crops, None)
        result = evaluate_clear.evaluate_recognition(inputs, logits, None, interval_by)
        assert result["interval_by"] == interval_by
        return result["sets"]["evaluated"]["intervals"]

    by_image = intervals([-1] * 48, "images")
    assert intervals([-1] * 48) == by_image
    columns, persons = SCHEMA.evaluated_indices, [7] * 6 + [3] * 6 + list(range(10, 46))
    arrays = np.array(probabilities)[:, columns], np.array(rows["test"]["labels"])[:, columns]
    expected = recognition_intervals(*arrays, groups=persons)
    assert expected["mean_accuracy"] != tuple(by_image["mean_accuracy"])
    found = intervals([*persons[:40], *[-1] * 8])
    for name, interval in expected.items():
        assert found[name] == pytest.approx(interval, abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calibrate_on": "test"}, "`calibrate_on` must not be in the reported split, got 'test'"),
        ({"calibrate_on": "train+test[:9]"}, "`calibrate_on` must not be in the reported split"),
        ({"calibrate_on": "test", "split": "trainval+test"}, "`calibrate_on` must not be in"),
        ({"store_thresholds": True}, "`calibrate_on` must name a split when thresholds are stored"),
        ({"calibration": "accuracy"}, "`calibration` must be one of .* got 'accuracy'"),
        ({"interval_by": "cameras"}, "`interval_by` must be one of .* got 'cameras'"),
    ],
)
def test_calibration_settings_that_make_no_sense_are_refused(make_settings, changes, message):
    with pytest.raises(ValueError, match=message):
        make_settings(**changes)


def test_thresholds_are_stored_whole_or_not_at_all_and_in_a_folder_only(
    calibrated, tmp_path, monkeypatch
):
    with pytest.raises(ValueError, match=r"`checkpoint` must be a folder .* got 'user/model'"):
        require_storable("user/model")
    file = shutil.copy(calibrated[0] / "processor_config.json", tmp_path)
    before = Path(file).read_bytes()

    def fail(path, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        store_calibration(str(tmp_path), {"criterion": "f1", "data": "x", "thresholds": {}})
    assert Path(file).read_bytes() == before


# ---- files --------------------------------------------------------------------------------------


def test_files_are_whole_and_nothing_lies_beside_them(report, folder):
    assert sorted(path.name for path in (folder / "report").iterdir()) == FILES
    pictures = {"attributes.png": (1000, 700), "reliability.png": (400, 500)}
    for name, least in {**pictures, "retrieval.png": (800, 900)}.items():
        with Image.open(folder / "report" / name) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width >= least[0]
            assert image.height >= least[1]
            assert len(image.convert("RGB").getcolors(2**24)) > 50  # not blank


def tables_of(text: str) -> list[list[list[str]]]:
    """Every table of a Markdown text: rows of cells, without the rule under the header."""
    tables, last = [], None
    for line in text.splitlines():
        if line.startswith("| "):
            if last is None:
                last = []
                tables.append(last)
            last.append([cell.strip() for cell in line.strip("|").split("|")])
        else:
            last = None
    for table in tables:
        assert set(table.pop(1)) == {"---"}
        assert {len(row) for row in table} == {len(table[0])}
    return tables


def test_markdown_repeats_the_numbers_in_percent(report, folder):
    text = (folder / "report/report.md").read_text()
    recognition, retrieval, few, attributes = tables_of(text)
    scores = report["recognition"]["sets"]["colours"]
    keys = ("mean_accuracy", "instance_accuracy", "instance_precision", "instance_recall")
    expected = [f"{100 * scores[key]:.2f}" for key in (*keys, "instance_f1")]
    bounds = [scores["intervals"][key] for key in ("mean_accuracy", "instance_f1")]
    bounds = [f"{100 * low:.1f} to {100 * high:.1f}" for low, high in bounds]
    error = f"{100 * scores['expected_calibration_error']:.2f}"
    row = [expected[0], bounds[0], *expected[1:], bounds[1], error]
    assert recognition[2] == ["colours (44)", "0.5", *row]
    best = report["retrieval"]["rows"][1]
    assert retrieval[2][:2] == ["CLEAR adapter", f"unseen ({report['retrieval']['num_unseen']})"]
    assert float(retrieval[2][2]) == pytest.approx(100 * best["mean_average_precision"], abs=0.005)
    assert [row[0] for row in few[1:]] == METHODS
    assert [row[0] for row in attributes[1:]] == list(SCHEMA.attributes)
    assert "nan" not in text.lower().replace("carryingnothing", "")
    for name in ("attributes.png", "reliability.png", "retrieval.png"):
        assert f"({name})" in text
    assert report["command"] in text


def test_leakage_is_remarked_for_peta_alone(report):
    assert "1,106" not in report_markdown(report)
    assert "1,106" in report_markdown({**report, "dataset": "peta"})


def test_without_an_adapter_there_is_no_retrieval(make_settings, tmp_path):
    report = evaluate_clear.main(
        make_settings(adapter=None, output_dir=str(tmp_path / "report"), split="test[:9]")
    )
    assert "retrieval" not in report
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == FILES[:4]
    assert "Retrieval" not in (tmp_path / "report/report.md").read_text()


# ---- what goes wrong ----------------------------------------------------------------------------

OTHER = AttributeSchema.from_names(["hat", "glasses", "backpack"])


@pytest.fixture(scope="module")
def others(save_checkpoint) -> dict[str, str]:
    """Checkpoints and adapters that do not fit."""
    other, other_adapter = save_checkpoint("other", OTHER)
    mixed = SCHEMA.subset([*SCHEMA.attributes[1:], SCHEMA.attributes[0]])
    shuffled, _ = save_checkpoint("shuffled", mixed)
    _, narrow_adapter = save_checkpoint("narrow", SCHEMA, fusion_embed_dim=8)
    return {
        "OTHER": other,
        "OTHER ADAPTER": other_adapter,
        "SHUFFLED": shuffled,
        "NARROW ADAPTER": narrow_adapter,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": "no/where"}, "`checkpoint` must be a folder or a Hub id .* 'no/where'"),
        (
            {"checkpoint": "OTHER", "adapter": None},
            "`checkpoint` must have the 105 .* with 3: it lacks personal",
        ),
        (
            {"checkpoint": "SHUFFLED", "adapter": None},
            "`checkpoint` must have .* with 105: another order",
        ),
        (
            {"checkpoint": "OTHER", "adapter": "OTHER ADAPTER"},
            "`dataset` must have the attributes of the adapter or of the checkpoint, .* "
            "got 'synthetic' with 105. Beside the adapter .*: it lacks hat, .*; it alone has "
            "personalLess30, .* Beside the checkpoint: it lacks hat",
        ),
        (
            {"checkpoint": "OTHER", "calibrate_on": "validation"},
            "`calibrate_on` must be None for this data set, got 'validation'. Recognition is left",
        ),
        ({"adapter": "no/where"}, "`adapter` must be the folder or Hub id .* 'no/where'"),
        (
            {"adapter": "OTHER ADAPTER"},
            "`adapter` must have the 105 attributes .* it alone has hat",
        ),
        ({"adapter": "NARROW ADAPTER"}, "`adapter` must be .* of this checkpoint"),
        ({"split": "testt"}, "testt"),
        ({"split": "test[:0]"}, "no data"),
        ({"calibrate_on": "everything"}, "everything"),
        ({"seen_split": "everything"}, "everything"),
        ({"dataset": "petta"}, "`dataset` must be one of"),
        ({"dataset": "peta", "data_dir": "no/where", "dataset_options": "{}"}, "`data_dir` must"),
    ],
)
def test_errors_come_before_the_work_in_one_message(
    make_settings, others, tmp_path, changes, message
):
    changes = {name: others.get(value, value) for name, value in changes.items()}
    output = tmp_path / "deep" / "report"
    settings = make_settings(output_dir=str(output), **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        evaluate_clear.load_inputs(settings)
    assert list(tmp_path.iterdir()) == []


def test_command_ends_with_one_message(tmp_path):
    with pytest.raises(SystemExit) as stop:
        evaluate_clear.run(["--checkpoint", "no/where", "--output_dir", str(tmp_path / "report")])
    assert str(stop.value.code).startswith("evaluate_clear.py: error: `checkpoint` must be")
    assert stop.value.__suppress_context__  # one message, no traceback of another library
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--chekpoint", "."], "there are no such options: --chekpoint"),
        (["--dataset_options", "["], "`dataset_options` must be a JSON object"),
        (["--batch_size", "0"], "`batch_size` must be at least 1"),
    ],
)
def test_command_line_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate_clear.parse_settings(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_file_in_the_place_of_the_folder_is_refused(make_settings, tmp_path):
    (tmp_path / "report").write_text("mine")
    with pytest.raises(ValueError, match="`output_dir` must be a folder, got the file"):
        evaluate_clear.main(make_settings(output_dir=str(tmp_path / "report")))
    assert (tmp_path / "report").read_text() == "mine"


def test_a_failure_leaves_no_half_file(report, tmp_path, monkeypatch):
    class Broken:
        def convert(self, mode):
            raise OSError("broken image")

    sheet = partial(draw_retrieval, ["a man"], [[(Broken(), True, "1")]])
    with pytest.raises(OSError, match="broken image"):
        evaluate_clear.write_report(tmp_path / "a", report, {"retrieval.png": sheet})
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == FILES[:2]
    with pytest.raises(ValueError, match="JSON compliant"):
        evaluate_clear.write_report(tmp_path / "b", {**report, "num_images": math.nan}, {})
    assert not (tmp_path / "b").exists()


def test_a_picture_that_cannot_be_written_leaves_nothing(report, tmp_path, monkeypatch):
    def fail(figure, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        evaluate_clear.write_report(tmp_path / "report", report, {})
    assert list((tmp_path / "report").iterdir()) == []


def test_a_failing_model_writes_nothing(make_settings, tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(evaluate_clear, "predict", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate_clear.main(make_settings(output_dir=str(tmp_path / "report")))
    assert list(tmp_path.iterdir()) == []
