"""A user's own folder: read, checked, divided, trained on and evaluated."""

import csv
import json
import logging
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState, GradientState

from clear_par import evaluate_clear, train
from clear_par.configuration_clear import PRESETS
from clear_par.datasets_scripts.person_dataset import (
    load_person_dataset,
    open_person_dataset,
    person_features,
    person_schema,
)
from clear_par.datasets_scripts.synthetic import Synthetic, encode, synthetic_crops

DRAWN = Synthetic.schema()
NAMES = ["accessoryHat", "personalMale", "hairLong", "hairShort", "carryingBackpack"]
HAIR = {"groups": [{"name": "hair", "options": {"long": "hairLong", "short": "hairShort"}}]}
U = -100


@pytest.fixture(scope="module")
def crops() -> list[tuple[bytes, list[int]]]:
    """Content and five labels of drawn crops."""
    columns = [DRAWN.index(name) for name in NAMES]
    drawn = synthetic_crops(40, seed=5, size=(32, 64))
    return [(encode(image, "PNG"), [labels[c] for c in columns]) for image, labels, _ in drawn]


@pytest.fixture
def write(crops, tmp_path):
    """A function that writes images and one metadata file: (folder, columns) -> root."""

    def write(columns: dict[str, list], place: str = "", kind: str = "csv") -> Path:
        folder = tmp_path / "mine" / place
        folder.mkdir(parents=True, exist_ok=True)
        count = len(next(iter(columns.values())))
        names = columns.get("file_name", [f"{row}.png" for row in range(count)])
        for row, name in enumerate(names):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(crops[row][0])
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        rows = [{"file_name": name, **row} for name, row in zip(names, rows, strict=True)]
        if kind == "jsonl":
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "metadata.jsonl").write_text(text)
        else:
            with (folder / "metadata.csv").open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
        return tmp_path / "mine"

    return write


SPLIT = ["train", "train", "val", "test"]


# ---- what is read -------------------------------------------------------------------------------


def test_a_table_gives_the_columns_of_every_data_set(write, crops):
    root = write(
        {
            "file_name": ["a.png", "sub/b.png", "c.png", "d.png"],
            "hat": ["1", "0", "", "1"],
            "red top": ["True", "FALSE", "-1", "1.0"],
            "person_id": ["p9", "", "p9", "p1"],
            "camera": ["3", "7", "-1", ""],
            "split": SPLIT,
        }
    )
    data = open_person_dataset(str(root))
    assert (data.name, data.schema.attributes) == ("mine", ("hat", "red top"))
    assert data.split_sizes == {"train": 2, "validation": 1, "test": 1}
    rows = data.load("train+validation+test")
    assert rows.features == person_features(data.schema)
    assert rows["labels"][:] == [[1, 1], [0, 0], [U, U], [1, 1]]
    assert rows["person_id"][:] == [0, -1, 0, 1]
    assert rows["camera"][:] == [3, 7, -1, -1]
    assert rows["image_name"][:] == ["a.png", "sub/b.png", "c.png", "d.png"]
    assert rows["category_id"][:] == [0, 1, 2, 0]
    assert encode(rows[1]["image"], "PNG") == crops[1][0]
    assert data.load("trainval").num_rows == 3


def test_json_lines_give_the_same_rows(write):
    columns = {"hat": [True, 0, None, 1.0], "bag": [-1, 1, 0, False], "split": SPLIT}
    columns["camera"] = [7, -1.0, None, 8]
    rows = load_person_dataset(str(write(columns, kind="jsonl")), split="train+validation+test")
    assert rows["camera"][:] == [7, -1, -1, 8]
    assert rows["labels"][:] == [[1, U], [0, 1], [U, 0], [1, 0]]
    assert rows["person_id"][:] == [-1] * 4


@pytest.mark.parametrize("folders", [("train", "validation", "test"), ("training", "Val", "eval")])
def test_each_split_may_have_its_own_folder(write, folders):
    for folder, label in zip(folders, (1, 0, 1), strict=True):
        root = write({"hat": [label]}, folder)
    data = open_person_dataset(str(root))
    assert data.split_sizes == {"train": 1, "validation": 1, "test": 1}
    assert data.load("validation")["labels"][:] == [[0]]
    assert data.load("test")["image_name"][:] == [f"{folders[2]}/0.png"]


def test_the_folders_of_the_images_say_the_split_too(write):
    root = write({"file_name": ["train/a.png", "dev/b.png", "test/c.png"], "hat": [1, 0, 1]})
    assert open_person_dataset(str(root)).load("validation")["image_name"][:] == ["dev/b.png"]


@pytest.mark.parametrize("structure", [True, False])
def test_parquet_with_embedded_images(crops, tmp_path, structure):
    for split, label in (("train", 1), ("validation", 0)):
        images = [{"bytes": c, "path": None} if structure else c for c, _ in crops[:2]]
        table = pa.table({"image": images, "hat": [label, None]})
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    data = open_person_dataset(str(tmp_path))
    assert data.split_sizes == {"train": 2, "validation": 2}
    rows = data.load("train+validation")
    assert rows["labels"][:] == [[1], [U], [0], [U]]
    assert len(set(rows["image_name"][:])) == 4
    assert encode(rows[1]["image"], "PNG") == crops[1][0]


# ---- the schema ---------------------------------------------------------------------------------


def test_without_a_schema_the_columns_are_flags(write):
    root = write({"hat": [1, 0, 1], "redTop": [0, 1, 1]})
    schema = person_schema(str(root))
    assert schema.describe([0, 1]) == "A person with red top."
    assert schema.query_values(schema.parse("a person with a hat").query) == [1, U]


def test_a_small_schema_declares_groups_and_order(write):
    columns = {name: [1, 0, 1] for name in ("hairShort", "hat", "hairLong")}
    root = write(columns)
    (root / "schema.json").write_text(json.dumps(HAIR))
    schema = person_schema(str(root))
    assert schema.attributes == ("hairShort", "hat", "hairLong")
    assert schema.evaluated == schema.attributes
    assert schema.query_values({"hair": "long"}) == [0, U, 1]  # one value says no to the others
    assert schema.describe([0, 1, 1]) == "A person with long hair and hat."
    (root / "schema.json").write_text(
        json.dumps({**HAIR, "attributes": ["hat", "hairLong", "hairShort"], "evaluated": ["hat"]})
    )
    data = open_person_dataset(str(root))
    assert (data.schema.attributes[0], data.schema.evaluated) == ("hat", ("hat",))


def test_a_schema_of_the_project_is_taken_as_it_is(write):
    root = write({name: [1, 0, 1] for name in DRAWN.attributes})
    DRAWN.to_json(root / "schema.json")
    assert person_schema(str(root)) == DRAWN


# ---- splits -------------------------------------------------------------------------------------


def test_a_made_split_keeps_persons_together_and_is_said(write, caplog):
    root = write({"hat": [1, 0] * 20, "person_id": [f"p{row // 2}" for row in range(40)]})
    with caplog.at_level(logging.WARNING):
        data = open_person_dataset(str(root))
    assert "No split is stated; images are divided by person_id: 32 train, 4" in caplog.text
    assert data.split_sizes == {"train": 32, "validation": 4, "test": 4}
    persons = [set(data.load(split)["person_id"][:]) for split in data.split_sizes]
    assert sum(map(len, persons)) == 20  # no person is in two splits
    again = open_person_dataset(str(root))
    for split in data.split_sizes:
        assert again.load(split)["image_name"][:] == data.load(split)["image_name"][:]


def test_a_made_split_without_persons_is_by_image(write, caplog):
    data = open_person_dataset(str(write({"hat": [1, 0, 1]})))
    assert data.split_sizes == {"train": 1, "validation": 1, "test": 1}
    assert "divided by image" in caplog.text


# ---- what is refused ----------------------------------------------------------------------------

FOUR = {"hat": [1, 0, 1, 1], "split": SPLIT}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {**FOUR, "colour": ["red", "0", "0", "1"]},
            r"`colour` must be 1, 0, .* got 'red' in row 1 of metadata\.csv\. Make one such column",
        ),
        ({**FOUR, "hat": [1, 0, 2, 1]}, r"`hat` must be 1, 0.*got '2' in row 3 of metadata\.csv"),
        ({**FOUR, "bag": ["", "", "-1", ""]}, "nothing but unknown for bag"),
        ({**FOUR, "split": ["train", "train", "hold-out", "test"]}, "got 'hold-out' in row 3"),
        ({**FOUR, "labels": [1, 1, 1, 1]}, "`labels` must not be a column"),
        ({"split": SPLIT}, "must have an attribute column"),
        ({"hat": [1, 0]}, "at least 3 persons or images"),
        ({"file_name": ["train/a.png", "b.png"], "hat": [1, 0]}, r"got none for 'b\.png'"),
        ({"file_name": ["a.png", "a.png"], "hat": [1, 0]}, r"must be unique, got 'a\.png' twice"),
    ],
)
def test_a_wrong_table_is_refused_with_place_and_remedy(write, columns, message):
    with pytest.raises(ValueError, match=message):
        open_person_dataset(str(write(columns)))


def test_a_column_that_the_schema_does_not_have_is_refused(write):
    root = write({**FOUR, "scarf": [1, 0, 1, 0]})
    (root / "schema.json").write_text(json.dumps({"attributes": ["hat", "coat"]}))
    message = r"unknown columns \['scarf'\], attributes without a column \['coat'\]"
    with pytest.raises(ValueError, match=message):
        open_person_dataset(str(root))
    (root / "schema.json").write_text("{")
    with pytest.raises(ValueError, match=r"`schema\.json` must be a schema"):
        open_person_dataset(str(root))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file_name,hat\nx.png,1\n", r"got 'x\.png' in row 1 of metadata\.csv, and there is no"),
        ("file_name,hat\n../x.png,1\n", r"a path inside 'mine', got '\.\./x\.png'"),
        ("file_name,hat\n/etc/x.png,1\n", "a path inside 'mine'"),
        ("image_path,hat\nx.png,1\n", "`file_name` must be a column"),
        ("file_name,hat,hat\nx.png,1,1\n", "must name every column once"),
        ("file_name,hat\nx.png,1,1\n", "must have 2 fields .* got 3 in row 1"),
        ("file_name,hat\n", "got empty metadata"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "metadata.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        open_person_dataset(str(folder))


def test_other_folders_are_refused(write, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold metadata.* Expected: metadata\.csv"):
        open_person_dataset(str(tmp_path / "empty"))
    write({"hat": [1]}, "train")
    with pytest.raises(ValueError, match="must have one metadata file, or one in each split"):
        open_person_dataset(str(write({"hat": [1]})))
    with pytest.raises(ValueError, match="`config_name` must be left out for your own data"):
        open_person_dataset(str(tmp_path / "mine"), config_name="a")


def test_a_broken_image_is_named(write):
    root = write(FOUR)
    (root / "2.png").write_bytes((root / "2.png").read_bytes()[:200])
    broken = open_person_dataset(str(root)).broken_images()
    assert list(broken) == ["2.png"]


# ---- training and evaluation --------------------------------------------------------------------


@pytest.fixture
def micro(make_micro_config, monkeypatch, tmp_path):
    """A preset of the smallest sizes, and a place of its own for everything written."""
    config = make_micro_config(text_config=None).to_dict()
    kept = {"image_height", "image_width", "fusion_embed_dim", "fusion_num_heads"}
    kept |= {n for n in config if n.startswith(("local_", "global_"))}
    monkeypatch.setitem(PRESETS, "micro", {name: config[name] for name in kept})
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "tables")
    monkeypatch.chdir(tmp_path)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def trained(write, crops, micro) -> list[str]:
    """Options of a command that reads forty crops, after an epoch of training on them."""
    labels = np.array([labels for _, labels in crops])
    columns = {name: labels[:, i].tolist() for i, name in enumerate(NAMES)}
    columns = {name: [v if v >= 0 else "" for v in values] for name, values in columns.items()}
    root = write(columns)
    (root / "schema.json").write_text(json.dumps(HAIR))
    usual = ["--dataset", str(root), "--batch_size", "16"]
    new = ["--preset", "micro", "--epochs", "1", "--output_dir", "run"]
    history = train.main(train.parse_settings([*usual, *new]))
    assert 0 < history[0]["mean_accuracy"] <= 1
    return usual


def check_report(report: dict) -> None:
    """The report is about the five attributes, and no file names a folder of this machine."""
    assert [row["attribute"] for row in report["recognition"]["attributes"]] == NAMES
    for path in (p for f in ("run", "adapter", "reports") for p in Path(f).rglob("*.json")):
        assert str(Path.cwd()) not in path.read_text(), path


def test_own_data_trains_and_evaluates_like_the_others(trained):
    settings = evaluate_clear.parse_settings([*trained, "--checkpoint", "run"])
    check_report(evaluate_clear.main(settings))


@pytest.mark.slow
def test_own_data_trains_a_retrieval_adapter(trained):
    options = {"stage": "retrieval", "checkpoint": "run", "query_kind": "hard", "embed_dim": "8"}
    options |= {"feature_views": "1", "epochs": "1", "output_dir": "adapter"}
    retrieval = [text for name, value in options.items() for text in (f"--{name}", value)]
    train.main(train.parse_settings([*trained, *retrieval]))
    both = ["--checkpoint", "run", "--adapter", "adapter"]
    report = evaluate_clear.main(evaluate_clear.parse_settings([*trained, *both]))
    assert report["retrieval"]["gallery_size"] == 4
    check_report(report)
