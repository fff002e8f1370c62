"""Converting to Parquet, loading it without our code, and pushing it to a Hub on this machine."""

import hashlib
import importlib
import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, Value, load_dataset
from huggingface_hub import HfApi

from clear_par.attributes_clear import AttributeSchema
from clear_par.datasets_scripts import convert, parquet_folder, publish
from clear_par.datasets_scripts.market1501 import Market1501
from clear_par.datasets_scripts.parquet_folder import Conversion, repeated_splits, write_folder
from clear_par.datasets_scripts.person_data import PersonData, Terms
from clear_par.datasets_scripts.person_dataset import (
    BUILDERS,
    load_person_dataset,
    open_person_dataset,
    person_features,
)
from clear_par.datasets_scripts.retrieval_protocols import category_ids
from clear_par.datasets_scripts.synthetic import encode, synthetic_crops
from clear_par.tests.small_market1501 import EXPECTED, SIZES, SmallMarket
from clear_par.training.settings import DataSettings, dataset_schema

pytest_plugins = ["clear_par.tests.hub_endpoint"]

NAMES = ("hat", "male", "red")
LABELS = np.array([[1, 0, 1], [0, 0, 1], [1, -100, 0], [0, 1, 1], [1, 0, 1], [0, 1, -100]], np.int8)
SPLITS = {"train": [0, 1, 2], "validation": [3], "test": [4, 5], "trainval": [0, 1, 2, 3]}


class Fixed(PersonData):
    """Six drawn crops in files whose names and places are not those of the rows."""

    name, config_name = "fixed", "partition0"

    def __init__(self, folder: Path, terms: Terms | None = None):
        self.schema = AttributeSchema.from_names(NAMES, "fixed")
        self.terms = terms or Terms("ask the owners", "other", "A. Author: Crops.", "https://x.org")
        kinds = ["PNG", "JPEG", "BMP", "PNG", "JPEG", "PNG"]
        self.contents = [
            encode(image.convert("RGB"), kind)
            for kind, (image, _, _) in zip(kinds, synthetic_crops(6, size=(16, 32)), strict=True)
        ]
        self.paths = [folder / f"secret_{row}.bin" for row in range(6)]
        for path, content in zip(self.paths, self.contents, strict=True):
            path.write_bytes(content)

    @property
    def split_sizes(self):
        return {split: len(rows) for split, rows in SPLITS.items()}

    def rows(self, split):
        rows = SPLITS[split]
        columns = {
            "image": [str(self.paths[row]) for row in rows],
            "labels": LABELS[rows].tolist(),
            "person_id": [10 + row for row in rows],
            "camera": [-1] * len(rows),
            "image_name": [f"cam/{row:03d}.png" for row in rows],
            "category_id": category_ids(LABELS)[rows],
            "place": ["here"] * len(rows),
        }
        features = person_features(self.schema, place=Value("string"))
        return Dataset.from_dict(columns, features=features)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory) -> Fixed:
    return Fixed(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="module")
def converted(fixed, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "fixed"
    write_folder(fixed, folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("tables"))


# ---- what is written ----------------------------------------------------------------------------


def test_the_folder_is_whole_and_names_no_place(fixed, converted):
    files = {p.relative_to(converted).as_posix() for p in converted.rglob("*") if p.is_file()}
    stems = [f"partition0/{split}-00000-of-00001.parquet" for split in ("train", "validation")]
    tables = {*stems, "partition0/test-00000-of-00001.parquet"}  # trainval is no copy
    assert files == tables | {"README.md", "schema.json", "conversion.json"}
    assert [p.name for p in converted.parent.iterdir()] == ["fixed"]
    for path in converted.rglob("*.*"):
        content = path.read_bytes()
        assert b"secret" not in content
        assert str(fixed.paths[0].parent).encode() not in content
    assert AttributeSchema.from_json(converted / "schema.json") == fixed.schema


def test_stock_load_dataset_gives_equal_rows_and_bytes_in_a_fresh_process(
    fixed, converted, tmp_path
):
    code = (
        "import json, sys, hashlib\n"
        "from datasets import Image, load_dataset\n"
        "data = load_dataset(sys.argv[1], cache_dir=sys.argv[2])\n"
        "assert not any(name.startswith('clear_par') for name in sys.modules)\n"
        "out = {}\n"
        "for split, rows in data.items():\n"
        "    plain = rows.cast_column('image', Image(decode=False))[:]\n"
        "    images = plain.pop('image')\n"
        "    plain['bytes'] = [hashlib.sha256(i['bytes']).hexdigest() for i in images]\n"
        "    plain['paths'] = [i['path'] for i in images]\n"
        "    plain['sizes'] = [i.size for i in rows['image']]\n"
        "    out[split] = plain\n"
        "print(json.dumps(out))\n"
    )
    command = [sys.executable, "-c", code, str(converted), str(tmp_path / "cache")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert set(found) == set(SPLITS)
    for split, rows in SPLITS.items():
        table = found[split]
        assert table["labels"] == LABELS[rows].tolist()
        digests = [hashlib.sha256(fixed.contents[row]).hexdigest() for row in rows]
        assert table["bytes"] == digests
        assert table["paths"] == [f"{row:03d}.png" for row in rows]
        assert table["image_name"] == [f"cam/{row:03d}.png" for row in rows]
        assert table["person_id"] == [10 + row for row in rows]
        assert table["category_id"] == category_ids(LABELS)[rows].tolist()
        assert table["sizes"] == [[16, 32]] * len(rows)


def test_the_card_declares_the_files_the_terms_and_the_counts(converted):
    card = (converted / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    settings = yaml.safe_load(head)
    assert settings["license"] == "other"
    assert settings["license_link"] == "https://x.org"
    assert settings["task_categories"] == ["image-classification"]
    assert settings["size_categories"] == ["n<1K"]
    (config,) = settings["configs"]
    assert (config["config_name"], config["default"]) == ("partition0", True)
    files = {entry["split"]: entry["path"] for entry in config["data_files"]}
    assert files["trainval"] == files["train"] + files["validation"]
    assert "| `trainval` | 4 | the rows of `train` and `validation`, stored once |" in text
    assert "| `test` | 2 |  |" in text
    assert "| 1 | `male` | yes | 40.0% | 5 |" in text  # known of five crops, two of them male
    assert "| `place` | of this data set alone |" in text
    for said in ("ask the owners", "A. Author: Crops.", "load_dataset(", "keep this copy private"):
        assert said in text


def test_large_splits_are_divided_into_shards(fixed, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_folder, "_ROWS_AT_ONCE", 1)
    record = write_folder(fixed, tmp_path / "out", shard_bytes=1)
    assert record.split_files["train"] == [
        f"partition0/train-0000{i}-of-00003.parquet" for i in range(3)
    ]
    table = load_dataset(str(tmp_path / "out"), split="trainval")
    assert table["image_name"][:] == [f"cam/{row:03d}.png" for row in SPLITS["trainval"]]


def test_repeated_splits_are_found_by_their_rows():
    names = {"ba": ["3", "1", "2"], "a": ["1", "2"], "b": ["3"], "c": ["1", "3"], "d": ["2", "1"]}
    assert repeated_splits({k: names[k] for k in ("ba", "a", "b")}) == {"ba": ["b", "a"]}
    mixed = {"all": ["1", "3", "2"], "a": ["1", "2"], "b": ["3"]}  # other order, same rows
    assert repeated_splits(mixed) == {"all": ["a", "b"]}
    nested = {"all": ["1", "2", "3", "4"], "ab": ["1", "2", "3"], **mixed, "t": ["4"]}
    nested["all"] = ["1", "2", "3", "4"]
    assert repeated_splits(nested) == {"ab": ["a", "b"], "all": ["a", "b", "t"]}
    assert repeated_splits({"a": ["1", "2"], "c": ["1", "3"], "d": ["2", "1"]}) == {}
    assert repeated_splits({"a": ["1"], "b": ["1"], "empty": []}) == {}
    twice = {"a": ["1", "1"], "b": ["1"], "c": ["1"]}  # as a weight makes them
    assert repeated_splits(twice) == {}


# ---- whole or not at all ------------------------------------------------------------------------


def test_an_earlier_conversion_of_the_same_data_is_replaced(tmp_path):
    (tmp_path / "files").mkdir()
    fixed = Fixed(tmp_path / "files")
    output = tmp_path / "out"
    write_folder(fixed, output)
    assert load_person_dataset(str(output), split="train")["labels"][0] == [1, 0, 1]
    LABELS[0] = [0, 1, 0]
    try:
        write_folder(fixed, output)
        assert load_person_dataset(str(output), split="train")["labels"][0] == [0, 1, 0]
    finally:
        LABELS[0] = [1, 0, 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["files", "out"]


def test_other_files_are_never_overwritten(fixed, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    write_folder(fixed, tmp_path / "used")
    (tmp_path / "used" / "more.txt").write_text("mine")
    write_folder(fixed, tmp_path / "other")
    another = Fixed(tmp_path)
    another.config_name = "partition1"
    for name, data, why in (
        ("file", fixed, "a file"),
        ("notes", fixed, "it holds other files"),
        ("used", fixed, "it holds other files"),
        ("other", another, "it holds fixed partition0"),
    ):
        with pytest.raises(ValueError, match=f"`output` must be new.*{why}"):
            write_folder(data, tmp_path / name)
    assert (tmp_path / "used" / "more.txt").read_text() == "mine"


def test_a_conversion_that_fails_leaves_nothing_and_keeps_the_old(tmp_path):
    (tmp_path / "files").mkdir()
    fixed, output = Fixed(tmp_path / "files"), tmp_path / "out"
    fixed.paths[4].unlink()
    with pytest.raises(FileNotFoundError):
        write_folder(fixed, output)
    assert [p.name for p in tmp_path.iterdir()] == ["files"]
    fixed.paths[4].write_bytes(fixed.contents[4])
    write_folder(fixed, output)
    before = Conversion.read(output)
    fixed.broken_images = lambda: {"cam/001.png": "truncated"}
    with pytest.raises(ValueError, match=r"1 broken: cam/001\.png: truncated"):
        write_folder(fixed, output)
    assert Conversion.read(output) == before


# ---- loading a converted folder -----------------------------------------------------------------


def test_a_converted_folder_is_a_data_set_of_train_and_evaluate(fixed, converted):
    settings = DataSettings(dataset=str(converted))
    assert dataset_schema(settings.dataset) == fixed.schema
    assert settings.load_rows("trainval")["person_id"][:] == [10, 11, 12, 13]
    assert settings.load_rows("train[1:]+test")["person_id"][:] == [11, 12, 14, 15]
    assert settings.load_rows("test").features == fixed.rows("test").features


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "tests"}, "`split` must be made of the splits of 'fixed', train, validation"),
        ({"split": "test["}, "`split` must be made of"),
        ({"data_dir": "x"}, "`data_dir` must be left out"),
        ({"allow_partial": True}, "`allow_partial` must be left out"),
    ],
)
def test_wrong_arguments_are_refused(converted, arguments, message):
    with pytest.raises(ValueError, match=message):
        load_person_dataset(str(converted), **arguments)


def test_a_converted_folder_needs_its_schema(fixed, tmp_path):
    write_folder(fixed, tmp_path / "out")
    AttributeSchema.from_names(["hat"]).to_json(tmp_path / "out" / "schema.json")
    with pytest.raises(ValueError, match=r"must have 1 labels in each row.* got 3 in split"):
        open_person_dataset(str(tmp_path / "out"))
    (tmp_path / "out" / "schema.json").unlink()
    with pytest.raises(ValueError, match=r"`dataset` must hold schema\.json"):
        dataset_schema(str(tmp_path / "out"))


# ---- pushing ------------------------------------------------------------------------------------


def test_a_push_commits_what_is_ours_and_is_private(fixed, hub_endpoint, tmp_path):
    folder = tmp_path / "out"
    record = write_folder(fixed, folder)
    (folder / "notes.txt").write_text("not ours")
    (folder / "partition0" / "mine.parquet").write_bytes(b"not ours")
    url = publish.publish(folder, "me/fixed", api=hub_endpoint.api())
    repository = hub_endpoint.repositories["me/fixed"]
    assert repository.private is True
    assert url == f"{hub_endpoint.url}/datasets/me/fixed/commit/{repository.sha}"
    (commit,) = repository.commits
    assert sorted(commit) == sorted([*record.files, "conversion.json"])
    for path, content in repository.files.items():
        assert content == (folder / path).read_bytes(), path
    assert repository.lfs == {path for path in record.files if path.endswith(".parquet")}
    digests = {hashlib.sha256((folder / path).read_bytes()).hexdigest() for path in repository.lfs}
    assert set(hub_endpoint.uploads) == digests


def test_what_was_pushed_loads_by_its_hub_id(converted, hub_endpoint, tmp_path, monkeypatch):
    publish.publish(converted, "me/fixed", api=hub_endpoint.api())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    settings = DataSettings(dataset="me/fixed")
    assert dataset_schema("me/fixed").attributes == NAMES
    assert settings.load_rows("test")["labels"][:] == LABELS[SPLITS["test"]].tolist()
    with pytest.raises(
        ValueError, match=r"`dataset` must be a folder or the Hub id .*'me/nothing'"
    ):
        dataset_schema("me/nothing")


@pytest.mark.usefixtures("hub_endpoint")
def test_a_push_without_a_connection_says_how_to_repeat_it(converted, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    unreachable = HfApi(endpoint="http://127.0.0.1:9", token="hf_of_a_test")
    with pytest.raises(publish.PublishError, match=r"is whole; repeat with: python -m clear_par"):
        publish.publish(converted, "me/drawn", api=unreachable)


REFUSED = ("/api/repos/create", "/preupload/")  # nothing has been sent by then


@pytest.mark.parametrize(
    "refused",
    ["/lfs/", "/commit/", *(pytest.param(r, marks=pytest.mark.slow) for r in REFUSED)],
)
def test_a_failed_push_keeps_the_folder_and_can_be_repeated(converted, hub_endpoint, refused):
    before = Conversion.read(converted)
    hub_endpoint.refuse = {refused}
    with pytest.raises(publish.PublishError, match=r"is whole; repeat with: python -m clear_par"):
        publish.publish(converted, "me/fixed", api=hub_endpoint.api())
    assert Conversion.read(converted) == before
    hub_endpoint.refuse = set()
    publish.publish(converted, "me/fixed", api=hub_endpoint.api())
    repository = hub_endpoint.repositories["me/fixed"]
    assert set(repository.files) == set(before.own_files)
    assert len(hub_endpoint.uploads) == len(set(hub_endpoint.uploads)) == 3  # none sent twice


def test_a_public_repository_needs_the_owners_permission(converted, hub_endpoint, capsys):
    api = hub_endpoint.api()
    with pytest.raises(ValueError, match=r"must be private: the licence of fixed does not allow"):
        publish.publish(converted, "me/fixed", private=False, api=api)
    assert hub_endpoint.repositories == {}
    api.create_repo("me/open", repo_type="dataset", private=False)
    with pytest.raises(ValueError, match="me/open is public"):
        publish.publish(converted, "me/open", api=api)
    assert hub_endpoint.repositories["me/open"].commits == []
    publish.publish(converted, "me/open", may_publish=True, api=api)
    assert len(hub_endpoint.repositories["me/open"].commits) == 1
    assert "WARNING: the licence of fixed does not allow" in capsys.readouterr().err


def test_a_free_licence_may_be_public(hub_endpoint, tmp_path, capsys):
    fixed = Fixed(tmp_path, Terms("CC-BY 4.0", "cc-by-4.0"))
    write_folder(fixed, tmp_path / "out")
    publish.publish(tmp_path / "out", "me/free", private=False, api=hub_endpoint.api())
    assert hub_endpoint.repositories["me/free"].private is False
    assert (
        "license: cc-by-4.0\n" in hub_endpoint.repositories["me/free"].files["README.md"].decode()
    )
    assert "WARNING" not in capsys.readouterr().err


def test_a_changed_folder_is_not_pushed(fixed, hub_endpoint, tmp_path):
    write_folder(fixed, tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("changed")
    with pytest.raises(ValueError, match=r"got a changed README\.md"):
        publish.publish(tmp_path / "out", "me/fixed", api=hub_endpoint.api())
    with pytest.raises(ValueError, match="`folder` must be a converted data set"):
        publish.publish(tmp_path, "me/fixed", api=hub_endpoint.api())
    assert hub_endpoint.repositories == {}


# ---- every builder ----


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_is_known_with_its_schema(name):
    module, builder = BUILDERS[name]
    made = getattr(importlib.import_module(f"clear_par.datasets_scripts{module}"), builder)
    assert dataset_schema(name) == made.schema()
    assert made.schema().name == {"synthetic": "peta", "upar2024": "upar"}.get(name, name)


def test_a_builders_data_converts_with_its_splits_and_terms(tmp_path, monkeypatch):
    (tmp_path / "market").mkdir()
    official = SmallMarket(tmp_path / "market")
    for name, value in EXPECTED.items():
        monkeypatch.setattr(Market1501, name, value)
    arguments = ["market1501", str(official.root), "--output", str(tmp_path / "out")]
    convert.main(arguments)
    names = {"train", "validation", "query", "bounding_box_test"}  # trainval and test repeat them
    stored = {path.name.partition("-")[0] for path in (tmp_path / "out").glob("*/*.parquet")}
    assert stored == names
    tables = load_dataset(str(tmp_path / "out"))
    assert {split: len(rows) for split, rows in tables.items()} == SIZES
    built = open_person_dataset("market1501", official.root)
    for split, rows in tables.items():
        labels = dict(zip(rows["image_name"][:], rows["labels"][:], strict=True))
        own = built.load(split)
        assert labels == dict(zip(own["image_name"][:], own["labels"][:], strict=True))
    with pytest.raises(SystemExit, match="convert: error: `data_dir` must"):
        convert.main(["market1501", *arguments[2:]])


# ---- the command --------------------------------------------------------------------------------


def test_the_command_converts_and_pushes(hub_endpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(publish, "HfApi", hub_endpoint.api)
    folder = tmp_path / "own"
    folder.mkdir()
    lines = ["file_name,hat"]
    for index, (image, _, _) in enumerate(synthetic_crops(6, size=(16, 32))):
        (folder / f"{index}.png").write_bytes(encode(image, "PNG"))
        lines.append(f"{index}.png,{index % 2}")
    (folder / "metadata.csv").write_text("\n".join(lines))
    output = tmp_path / "out"
    convert.main([str(folder), "--output", str(output), "--push-to-hub", "me/own"])
    said = capsys.readouterr().out
    assert f"in {output}" in said
    assert f"Pushed to {hub_endpoint.url}/datasets/me/own/commit/" in said
    assert hub_endpoint.repositories["me/own"].private is True
    with pytest.raises(SystemExit, match="convert: error: `repo_id` must be private"):
        convert.main([str(folder), "--output", str(output), "--push-to-hub", "me/two", "--public"])
    with pytest.raises(SystemExit, match="publish: error: `folder` must be a converted data set"):
        publish.main([str(folder), "me/own"])
    with pytest.raises(SystemExit, match="convert: error: `dataset` must be one of"):
        convert.main(["nothing", "--output", str(output)])
    with pytest.raises(SystemExit, match="2"):
        convert.main([str(folder), "--output", str(output), "--public"])
    assert "belong to --push-to-hub" in capsys.readouterr().err
    assert pq.read_schema(output / "default" / "test-00000-of-00001.parquet").names[0] == "image"
