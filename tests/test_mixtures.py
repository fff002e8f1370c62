"""Label mappings against UPAR's own annotation, and several data sets read as one."""

import csv
import itertools
import json
import logging
import re
from pathlib import Path

import datasets
import numpy as np
import pytest
from accelerate.state import AcceleratorState, GradientState
from scipy.io import loadmat

from clear_par import evaluate_clear, train
from clear_par.attributes_clear import AttributeSchema
from clear_par.configuration_clear import PRESETS
from clear_par.datasets_scripts.label_mapping import (
    MAPPINGS,
    LabelMapping,
    find_mapping,
    read_mapping,
)
from clear_par.datasets_scripts.mixtures import MixturePart
from clear_par.datasets_scripts.person_dataset import (
    load_person_dataset,
    open_person_dataset,
    person_features,
    person_schema,
)
from clear_par.datasets_scripts.synthetic import encode, synthetic_crops
from clear_par.training.crops import labels_of
from clear_par.training.settings import DataSettings, dataset_schema

U = -100
SOURCE = AttributeSchema.from_names(["a", "b"], "source")
TARGET = AttributeSchema.from_names(["x", "y"], "target")

# ---- the logic ----------------------------------------------------------------------------------


def truth(expression, a: int, b: int) -> int:
    """Kleene's logic from its meaning: known only if every completion agrees."""

    def value(part, row):
        if part is None:
            return row[2]
        if isinstance(part, str):
            return row["ab".index(part)]
        ((key, inner),) = part.items()
        if key == "not":
            return not value(inner, row)
        return (any if key == "any" else all)(value(p, row) for p in inner)

    free = [(0, 1) if label == U else (label,) for label in (a, b)]
    found = {bool(value(expression, row)) for row in itertools.product(*free, (0, 1))}
    return U if len(found) > 1 else int(found.pop())


@pytest.mark.parametrize(
    "expression",
    [
        "a",
        {"not": "a"},
        {"any": ["a", "b"]},
        {"all": ["a", "b"]},
        {"any": ["a", {"all": ["b", None]}]},
        {"all": [{"not": "a"}, {"any": ["b", None]}]},
        {"not": {"any": ["a", {"not": "b"}]}},
        None,
    ],
)
def test_expressions_are_known_only_where_every_completion_agrees(expression):
    rows = np.array(list(itertools.product((0, 1, U), repeat=2)), np.int8)
    mapped = LabelMapping(SOURCE, TARGET, {"y": expression}).apply(rows)
    assert mapped.dtype == np.int8
    assert (mapped[:, 0] == U).all()  # without an entry: unknown
    assert mapped[:, 1].tolist() == [truth(expression, a, b) for a, b in rows.tolist()]


@pytest.mark.parametrize(
    ("expressions", "message"),
    [
        ({"z": "a"}, "must name an attribute of 'target', got 'z'"),
        ({"x": "c"}, "must name an attribute of 'source', got 'c'"),
        ({"x": {"all": ["a", "c"]}}, "got 'c'"),
        ({"x": {"xor": ["a", "b"]}}, r"must be given by a name.*got \{'xor'"),
        ({"x": {"any": []}}, "must be given by a name"),
        ({"x": {"any": "a"}}, "must be given by a name"),
        ({"x": {"not": "a", "any": ["b"]}}, "must be given by a name"),
        ({"x": 1}, "must be given by a name"),
    ],
)
def test_wrong_expressions_are_refused(expressions, message):
    with pytest.raises(ValueError, match=message):
        LabelMapping(SOURCE, TARGET, expressions)


def test_a_mapping_file_must_be_one_between_the_two_schemas(tmp_path):
    path = tmp_path / "mapping.json"
    good = {"source": "source", "target": "target", "attributes": {"x": "a"}}
    path.write_text(json.dumps(good))
    assert find_mapping(SOURCE, TARGET, path).expressions == {"x": "a"}
    for change, message in (
        ({"source": "peta"}, "`source` must be 'source', got 'peta'"),
        ({"attribute": {}}, "keys must be of"),
        ({"attributes": {"x": "c"}}, "got 'c'"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(ValueError, match=rf"got '.*mapping\.json': .*{message}"):
            read_mapping(path, SOURCE, TARGET)
    with pytest.raises(ValueError, match=r"got none\. There are market1501_to_upar, pa100k"):
        find_mapping(SOURCE, TARGET)


def test_equal_names_need_no_file():
    turned = AttributeSchema.from_names(["b", "a"], "turned")
    rows = np.array([[1, 0], [U, 1]], np.int8)
    assert find_mapping(SOURCE, turned).apply(rows).tolist() == [[0, 1], [1, U]]


# ---- the files, against UPAR's own labels -------------------------------------------------------

SAME = 1.0  # UPAR took the label over
# What UPAR labelled anew, or means a little differently: agreement on the known labels.
SIMILAR = {
    ("peta", "Age-Young"): 0.996,
    ("peta", "Age-Adult"): 0.972,
    ("peta", "LowerBody-Type-Skirt&Dress"): 0.983,
    ("market1501", "Hair-Length-Short"): 0.935,
    ("market1501", "Hair-Length-Long"): 0.947,
}
NUM_IMAGES = {"peta": 8710, "pa100k": 25777, "market1501": 18454}


@pytest.fixture(scope="module")
def upar(shared_folder) -> dict[str, list[int]]:
    """Image -> UPAR's 40 labels, of its validation and of a fifth of its training rows."""
    labels = {}
    for name in ("val_gt.csv", "train_sample.csv"):
        with (shared_folder / "data" / "upar" / name).open(newline="") as file:
            rows = csv.reader(file)
            header = [entry.lstrip("# ") for entry in next(rows)]
            assert tuple(header[-40:]) == person_schema("upar").attributes
            labels |= {row[0]: [int(v) for v in row[1:]] for row in rows}
    return labels


def peta_labels(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    record = loadmat(folder / "peta" / "PETA.mat")["peta"][0, 0]
    rows = record["data"].astype(np.int64)
    names = [entry[0][0] for entry in record["attribute"]]
    return names, {f"PETA/images/{row[0]:05d}.png": row[4:] for row in rows}


def pa100k_labels(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    content, labels = loadmat(folder / "pa100k" / "annotation.mat"), {}
    for part in ("train", "val", "test"):
        images = [entry[0][0] for entry in content[f"{part}_images_name"]]
        paths = [f"PA100k/release_data/release_data/{image}" for image in images]
        labels |= dict(zip(paths, content[f"{part}_label"].astype(np.int64), strict=True))
    return [entry[0][0] for entry in content["attributes"]], labels


class MarketLabels(dict):
    """By person: the labels of an image are those of its first four digits."""

    def get(self, path: str, default=None):
        is_market = path.startswith("Market1501/")
        return super().get(path.rpartition("/")[2][:4], default) if is_market else default


def market1501_labels(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    record = loadmat(folder / "market1501" / "market_attribute.mat")["market_attribute"][0, 0]
    labels, ages = MarketLabels(), ("young", "teenager", "adult", "old")
    for part in ("train", "test"):
        fields = record[part][0, 0]
        plain = sorted(set(fields.dtype.names) - {"image_index", "age"})
        age = np.equal.outer(fields["age"].ravel(), [1, 2, 3, 4]).astype(np.int64)
        others = np.stack([fields[name].ravel().astype(np.int64) - 1 for name in plain], axis=1)
        persons = [entry[0] for entry in fields["image_index"].ravel()]
        labels.update(zip(persons, np.concatenate([age, others], axis=1), strict=True))
    return [*ages, *plain], labels


READERS = {"peta": peta_labels, "pa100k": pa100k_labels, "market1501": market1501_labels}


@pytest.mark.parametrize("source", READERS)
def test_mapped_official_labels_are_those_of_upar(source, upar, shared_folder):
    names, official = READERS[source](shared_folder / "data")
    schema, target = person_schema(source), person_schema("upar")
    pairs = [(official.get(image), own) for image, own in upar.items()]
    rows, own = zip(*(pair for pair in pairs if pair[0] is not None), strict=True)
    assert len(rows) == NUM_IMAGES[source]
    labels = np.stack(rows)[:, [names.index(name) for name in schema.attributes]]
    mapping = find_mapping(schema, target)
    mapped, own = mapping.apply(labels), np.array(own)
    for index, name in enumerate(target.attributes):
        known = mapped[:, index] != U
        assert known.any() == (name in mapping.expressions), name
        if known.any():
            agreement = (mapped[known, index] == own[known, index]).mean()
            assert agreement >= SIMILAR.get((source, name), SAME), (name, agreement)
            assert {0, 1} == set(mapped[known, index].tolist()), name  # never one-sided


def test_what_agrees_too_little_is_unknown():
    peta, pa100k = (
        find_mapping(person_schema(name), person_schema("upar")) for name in ("peta", "pa100k")
    )
    for mapping in (peta, pa100k):
        assert "Accessory-Glasses-Normal" not in mapping.expressions
        assert "Accessory-Glasses-Sun" not in mapping.expressions
    assert "LowerBody-Length-Short" not in peta.expressions


def test_every_mapping_file_of_the_project_is_whole():
    files = sorted(MAPPINGS.glob("*.json"))
    sources = ["market1501", "pa100k", "peta", "rapv2"]
    assert [path.stem for path in files] == [f"{source}_to_upar" for source in sources]
    for path, source in zip(files, sources, strict=True):
        mapping = read_mapping(path, person_schema(source), person_schema("upar"))
        assert len(mapping.expressions) >= 11


def test_rapv2_is_mapped_by_meaning():
    schema, target = person_schema("rapv2"), person_schema("upar")
    mapping, rows = find_mapping(schema, target), np.zeros((2, 54), np.int8)
    for name in ("Femal", "Age31-45", "hs-LongHair", "lb-Dress", "attachment-HandBag"):
        rows[0, schema.index(name)] = 1
    rows[1, schema.index("hs-BaldHead")] = 1
    first, second = (
        {name: int(v) for name, v in zip(target.attributes, row, strict=True) if v != U}
        for row in mapping.apply(rows)
    )
    present = {name for name, value in first.items() if value}
    assert present == {
        *("Gender-Female", "Age-Adult", "Hair-Length-Long"),
        *("LowerBody-Type-Skirt&Dress", "Accessory-Bag"),
    }
    assert {name for name, value in second.items() if value} == {
        *("Hair-Length-Bald", "LowerBody-Type-Trousers&Shorts")
    }
    assert not any("Color" in name or "Glasses" in name for name in first)


# ---- mixtures -----------------------------------------------------------------------------------

SIZES = {"train_size": 6, "validation_size": 3, "test_size": 2, "width": 16, "height": 32}
DRAWN = {"dataset": "synthetic", "options": SIZES}


@pytest.fixture
def mixture(tmp_path, monkeypatch):
    """A function that writes a mixture of drawn crops and of a folder beside its file."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "tables")
    own = tmp_path / "shop"
    own.mkdir()
    lines = ["file_name,woman,hat,person_id,split"]
    for row, (image, _, _) in enumerate(synthetic_crops(5, seed=9, size=(16, 32))):
        (own / f"{row}.png").write_bytes(encode(image, "PNG"))
        split = ["train", "train", "train", "validation", "validation"][row]
        lines.append(
            f"{row}.png,{row % 2},{['', 1, 0, 1, 0][row]},{'' if row == 4 else row},{split}"
        )
    (own / "metadata.csv").write_text("\n".join(lines))
    words = {"Gender-Female": "woman", "Accessory-Hat": "hat"}
    mapping = {"source": "shop", "target": "upar", "attributes": words}
    (tmp_path / "shop.json").write_text(json.dumps(mapping))

    def write(drawn: dict | None = None, shop: dict | None = None, schema: str = "upar") -> str:
        parts = [{**DRAWN, **(drawn or {})}]
        parts.append({"dataset": "shop", "mapping": "shop.json", **(shop or {})})
        path = tmp_path / "mixture.json"
        path.write_text(json.dumps({"schema": schema, "sources": parts}))
        return str(path)

    return write


def test_a_mixture_has_one_schema_and_the_rows_of_all(mixture):
    path, target = mixture(), person_schema("upar")
    data = open_person_dataset(path)
    assert data.schema == dataset_schema(path) == target
    rows = data.load("train")
    assert rows.features == person_features(target)
    assert rows["image_name"][:] == [
        *(f"synthetic/train_{i:05d}.png" for i in range(6)),
        *(f"shop/{i}.png" for i in range(3)),
    ]
    labels = labels_of(rows)
    own = labels_of(load_person_dataset("synthetic", split="train", **SIZES))
    mapping = find_mapping(person_schema("peta"), target)
    assert labels[:6].tolist() == mapping.apply(own).tolist()
    woman, hat = target.index("Gender-Female"), target.index("Accessory-Hat")
    assert labels[6:, woman].tolist() == [0, 1, 0]
    assert labels[6:, hat].tolist() == [U, 1, 0]
    assert (np.delete(labels[6:], [woman, hat], axis=1) == U).all()
    assert rows[0]["image"].size == (16, 32)


def test_persons_and_categories_are_unique_over_the_mixture(mixture):
    data = open_person_dataset(mixture())
    rows = data.load("train+validation+test")
    persons = rows["person_id"][:]
    assert persons.count(-1) == 1  # unknown stays unknown
    known = [person for person in persons if person != -1]
    assert len(set(known)) == len(known) == 6 + 3 + 2 + 4  # each crop shows another person
    category_of: dict[tuple, int] = {}
    for labels, category in zip(rows["labels"][:], rows["category_id"][:], strict=True):
        assert category_of.setdefault(tuple(labels), category) == category
    assert len(set(category_of.values())) == len(category_of)


def test_validation_may_be_that_of_one_data_set(mixture, caplog):
    settings = DataSettings(dataset=mixture())
    own = settings.load_rows("shop:validation")
    assert own["image_name"][:] == ["shop/3.png", "shop/4.png"]
    assert settings.load_rows("validation").num_rows == 3 + 2
    assert settings.load_rows("shop:trainval[1:3]")["image_name"][:] == ["shop/1.png", "shop/2.png"]
    assert settings.load_rows("trainval").num_rows == 6 + 3 + 3 + 2
    with caplog.at_level(logging.WARNING):
        assert settings.load_rows("test").num_rows == 2
    assert "shop has no split 'test'" in caplog.text
    with pytest.raises(ValueError, match="must be made of the splits of 'mixture', train"):
        settings.load_rows("shop:test")


def test_limit_and_weight_change_training_rows_alone(mixture):
    data = open_person_dataset(mixture({"limit": 4}, {"weight": 2, "name": "own"}))
    names = data.load("train")["image_name"][:]
    drawn, own = names[:4], names[4:]
    assert len(set(drawn)) == 4
    assert sorted(own) == sorted([f"own/{i}.png" for i in range(3)] * 2)
    assert data.load("validation").num_rows == 5
    assert data.load("own:train").num_rows == 3
    assert data.split_sizes["train"] == 10


@pytest.mark.parametrize(
    ("limit", "weight", "size"), [(None, 0.5, 50), (None, 2.25, 225), (10, 1.5, 15), (1000, 1, 100)]
)
def test_rows_are_chosen_evenly_and_the_same_each_time(limit, weight, size):
    part = MixturePart("peta", limit=limit, weight=weight)
    chosen = part.chosen(100)
    assert len(chosen) == size
    assert np.array_equal(chosen, part.chosen(100))
    _, counts = np.unique(chosen, return_counts=True)
    assert counts.max() - counts.min() <= 1
    assert len(counts) == min(limit or 100, 100, size)


@pytest.mark.parametrize(
    ("drawn", "shop", "message"),
    [
        ({"datdset": "x"}, {}, "`sources` must have `dataset` and may have data_dir"),
        ({"limit": 0}, {}, "`limit` must be a number of rows from 1, got 0"),
        ({"weight": 0}, {}, "`weight` must be above 0"),
        ({"name": "shop"}, {}, "`name` must be unique, got 'shop' twice"),
        ({}, {"mapping": None}, "`mapping` must say 'shop' in the attributes of 'upar', got none"),
    ],
)
def test_wrong_mixtures_are_refused(mixture, drawn, shop, message):
    with pytest.raises(ValueError, match=message):
        open_person_dataset(mixture(drawn, shop))


def test_a_file_that_is_no_mixture_is_refused(mixture, tmp_path):
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"`dataset` must be a mixture, got 'list\.json'"):
        open_person_dataset(str(tmp_path / "list.json"))
    with pytest.raises(ValueError, match="`dataset` must be one of"):
        open_person_dataset(mixture(schema="upper"))


def test_a_mixture_may_be_published_only_if_all_of_it_may(mixture):
    terms = open_person_dataset(mixture()).terms
    assert (terms.hub_license, terms.may_be_published) == ("other", False)
    assert terms.license == "synthetic: apache-2.0; shop: not stated"


# ---- training and evaluation --------------------------------------------------------------------


@pytest.mark.slow
def test_a_mixture_trains_and_is_evaluated(mixture, make_micro_config, tmp_path, monkeypatch):
    config = make_micro_config(text_config=None).to_dict()
    kept = {"image_height", "image_width", "fusion_embed_dim", "fusion_num_heads"}
    kept |= {n for n in config if n.startswith(("local_", "global_"))}
    monkeypatch.setitem(PRESETS, "micro", {name: config[name] for name in kept})
    monkeypatch.chdir(tmp_path)
    usual = ["--dataset", mixture(), "--batch_size", "4"]
    own = ["--validation_split", "shop:validation", "--preset", "micro", "--epochs", "1"]
    history = train.main(train.parse_settings([*usual, *own, "--output_dir", "run"]))
    assert 0 <= history[0]["mean_accuracy"] <= 1
    split = ["--split", "validation", "--checkpoint", "run"]
    report = evaluate_clear.main(evaluate_clear.parse_settings([*usual, *split]))
    names = [row["attribute"] for row in report["recognition"]["attributes"]]
    assert names == list(person_schema("upar").attributes)
    assert report["num_images"] == 5
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


# ---- what the documentation shows ---------------------------------------------------------------


@pytest.mark.slow
def test_the_examples_of_the_readme_run(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "tables")
    text = (repository / "datasets_scripts" / "README.md").read_text()
    own = text[text.index("## Your own data") : text.index("## A further data set")]
    (table,) = re.findall(r"```csv\n(.*?)```", own, re.DOTALL)
    schema, mixture, mapping = map(json.loads, re.findall(r"```json\n(.*?)```", own, re.DOTALL))
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "metadata.csv").write_text(table)
    (folder / "schema.json").write_text(json.dumps(schema))
    names = ["a.jpg", "b.jpg", "sub/c.jpg"]
    for name, (image, _, _) in zip(names, synthetic_crops(3, size=(16, 32)), strict=True):
        (folder / name).write_bytes(encode(image, "JPEG"))
    (tmp_path / "mine_to_upar.json").write_text(json.dumps(mapping))
    assert {part["dataset"] for part in mixture["sources"]} == {"peta", "pa100k", "mine"}
    mixture["sources"] = [{**DRAWN, "name": "peta"}, mixture["sources"][2]]  # no official files
    (tmp_path / "mixture.json").write_text(json.dumps(mixture))
    data = open_person_dataset(str(tmp_path / "mixture.json"))
    assert data.load("train").num_rows == 6 + 2
    own_rows = data.load("mine:train+mine:validation+mine:test")
    labels = dict(zip(own_rows["image_name"][:], labels_of(own_rows), strict=True))
    assert labels["mine/b.jpg"][data.schema.index("Accessory-Backpack")] == U
    assert labels["mine/a.jpg"][data.schema.index("Hair-Length-Short")] == 0
    for part in json.loads(re.findall(r"```json\n(.*?)```", own, re.DOTALL)[1])["sources"]:
        MixturePart(**part)
