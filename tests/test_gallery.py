"""The gallery: built from drawn crops with the micro model, compared with hashlib and numpy."""

import csv
import doctest
import hashlib
import importlib
import io
import json
import re
import resource
import shutil
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from clear_par import gallery_clear
from clear_par.gallery import building, hub_rows, tuning
from clear_par.gallery.embedding import Embedder
from clear_par.gallery.filters import Column, column, compile_filter
from clear_par.gallery.gallery import BuildOptions, Gallery
from clear_par.gallery.index_settings import IVF, IndexSettings
from clear_par.gallery.metadata import column_name, column_types, convert
from clear_par.gallery.sources import open_source, read_again
from clear_par.gallery.table import GalleryTable
from clear_par.gallery.tuning import exact_ids

NUM_CROPS = 40


@pytest.fixture(scope="module")
def embedder(gallery_model) -> Embedder:
    return Embedder.load(str(gallery_model), device="cpu")


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> Path:
    """Drawn crops of mixed sizes, modes and formats, in two folders, with metadata."""
    folder = tmp_path_factory.mktemp("crops")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(NUM_CROPS):
        size = (int(rng.integers(8, 60)), int(rng.integers(8, 60)))
        pixels = rng.integers(0, 256, (*size, 3), np.uint8) // (1 + number % 5)
        name = f"{'ab'[number % 2]}/c{number % 3}_{number:03d}.{('png', 'jpg')[number % 2]}"
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).convert(("RGB", "L")[number % 4 == 0]).save(path)
        time = f"2024-05-{1 + number % 28:02d}T12:00:00+02:00"
        shop = "it's" if number % 2 else ""
        rows.append({"file_name": name, "time": time, "shop": shop, "floor": str(number % 4)})
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


OPTIONS = BuildOptions(name_pattern=r"/(?P<camera>c\d)_", batch_size=8)


@pytest.fixture(scope="module")
def gallery(embedder, crops, tmp_path_factory) -> Gallery:
    """Built once; tests that write copy or build their own."""
    place = tmp_path_factory.mktemp("galleries") / "people"
    return Gallery.build(str(place), str(crops), embedder, OPTIONS)[0]


@pytest.fixture
def own(gallery, tmp_path) -> Gallery:
    """A copy that a test may change."""
    shutil.copytree(gallery.table.uri, tmp_path / "own")
    return Gallery.open(str(tmp_path / "own"), gallery.embedder)


def images_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".jpg"))


def rows_of(gallery: Gallery, where: str | None = None) -> list[dict]:
    names = [name for name in gallery.table.schema.names if name != "jpeg"]
    return [row for batch in gallery.table.batches(names, where) for row in batch.to_pylist()]


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def holding(gallery: Gallery, content: bytes) -> list[Path]:
    """The files on the disk that hold these bytes."""
    files = [path for path in Path(gallery.table.uri).rglob("*") if path.is_file()]
    return [path for path in files if content in path.read_bytes()]


# ---- building -----------------------------------------------------------------------------------


def test_rows_hold_what_the_model_and_the_files_say(gallery, embedder, crops):
    rows = {row["image"]: row for row in rows_of(gallery)}
    assert len(rows) == NUM_CROPS
    for path in images_of(crops)[::7]:
        row = rows[path.relative_to(crops).as_posix()]
        assert row["id"] == hash_of(path)
        inputs = embedder.processor(images=path, return_tensors="pt")
        with torch.no_grad():
            output = embedder.model(**inputs)
        np.testing.assert_allclose(row["embedding"], output.image_embeds[0], atol=1e-5)
        chances = torch.sigmoid(output.logits[0]).tolist()
        np.testing.assert_allclose(list(row["attributes"].values()), chances, atol=1e-5)
        number = int(path.stem[-3:])
        assert row["camera"] == f"c{number % 3}"
        assert row["time"] == datetime(2024, 5, 1 + number % 28, 10)  # UTC
        assert (row["shop"], row["floor"]) == ("it's" if number % 2 else None, number % 4)


def test_again_adds_nothing_and_copies_count_once(own, crops, tmp_path):
    report = own.add(str(crops), OPTIONS)
    assert (report.added, report.known) == (0, NUM_CROPS)
    more = tmp_path / "more"
    more.mkdir()
    Image.new("RGB", (9, 9), "red").save(more / "new.png")
    for name in ("copy1.png", "copy2.png"):
        (more / name).write_bytes((more / "new.png").read_bytes())
    report = own.add(str(more))
    assert (report.added, report.known, report.duplicates, report.broken) == (1, 0, 2, [])
    assert own.table.count() == NUM_CROPS + 1


def test_broken_images_are_reported_and_skipped(own, crops, tmp_path):
    good = images_of(crops)[0]
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "cut.png").write_bytes(good.read_bytes()[:-50])
    (bad / "empty.jpg").touch()
    (bad / "empty2.jpg").touch()
    (bad / "text.png").write_text("no image")
    Image.new("RGB", (9, 9), "blue").save(bad / "fine.png")
    report = own.add(str(bad))
    assert report.added == 1
    assert [name for name, _ in report.broken] == [
        "cut.png",
        "empty.jpg",
        "empty2.jpg",
        "text.png",
    ]
    assert "4 broken images skipped" in report.summary()


def test_a_build_that_stopped_goes_on(embedder, crops, tmp_path, monkeypatch):
    monkeypatch.setattr(building, "COMMIT_ROWS", 8)
    append, calls = GalleryTable.append, []

    def stop_at_third(self, rows):
        calls.append(len(rows))
        if len(calls) == 3:
            raise KeyboardInterrupt
        append(self, rows)

    monkeypatch.setattr(GalleryTable, "append", stop_at_third)
    place = str(tmp_path / "people")
    with pytest.raises(KeyboardInterrupt):
        Gallery.build(place, str(crops), embedder, OPTIONS)
    assert GalleryTable.open(place).count() == 16
    gallery, report = Gallery.build(place, str(crops), embedder, OPTIONS)
    assert (report.added, report.known) == (NUM_CROPS - 16, 16)
    assert len(gallery.table.ids()) == gallery.table.count() == NUM_CROPS


def test_a_full_disk_leaves_the_last_version(own, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    for number in range(200):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(more / f"{number}.png")
    before = own.table.ids()
    with files_of_at_most(4_000), pytest.raises(OSError, match=r"full disk .* keeps what was"):
        own.add(str(more))
    assert GalleryTable.open(own.table.uri).ids() == before
    assert own.search({"hat": True}).hits
    assert own.add(str(more)).added == 200


@contextmanager
def files_of_at_most(size: int):
    """Inside, no file may grow beyond so many bytes, which is what a full disk looks like."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_one_writer_at_a_time(own, crops):
    with own.table.writing(), pytest.raises(ValueError, match="one writer at a time"):
        Gallery.open(own.table.uri, own.embedder).add(str(crops))


# ---- sources ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(crops, tmp_path_factory) -> dict[str, str]:
    """The same crops as zip, Parquet and saved data set."""
    import datasets

    folder = tmp_path_factory.mktemp("sources")
    paths = images_of(crops)
    with zipfile.ZipFile(folder / "crops.zip", "w") as archive:
        for path in [*paths, crops / "metadata.csv"]:
            archive.write(path, path.relative_to(crops))
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    floors = [int(path.stem[-3:]) % 4 for path in paths]
    pq.write_table(
        pa.table({"image": cells, "floor": floors}), folder / "crops.parquet", row_group_size=7
    )
    features = datasets.Features({"image": datasets.Image(), "floor": datasets.Value("int32")})
    rows = datasets.Dataset.from_dict({"image": cells, "floor": floors}, features=features)
    rows.save_to_disk(folder / "saved")
    return {name: str(folder / name) for name in ("crops.zip", "crops.parquet", "saved")}


@pytest.mark.parametrize("name", ["crops.zip", "crops.parquet", "saved"])
def test_other_sources_give_the_same_files(sources, crops, name):
    source = open_source(sources[name])
    items = list(source.items())
    paths = images_of(crops)
    assert source.count == len(items) == NUM_CROPS
    assert [item.read() for item in items] == [path.read_bytes() for path in paths]
    floors = [convert(item.metadata["floor"], "floor", pa.int64()) for item in items]
    assert floors == [int(path.stem[-3:]) % 4 for path in paths]
    assert read_again(source.name, items[9].image) == paths[9].read_bytes()


def test_all_splits_of_a_builder_are_read_but_none_twice(monkeypatch):
    from datasets import Dataset

    class Data:
        parts = {"train": ["a", "b"], "validation": ["c"], "trainval": ["a", "b", "c"]}
        own_splits = tuple(parts)

        def rows(self, split):
            return Dataset.from_dict({"image_name": self.parts[split]})

        load = rows

    monkeypatch.setattr(hub_rows, "open_person_dataset", lambda name, folder: Data())
    found = hub_rows.load_splits("peta@folder", None)
    assert {name: rows["image_name"][:] for name, rows in found.items()} == {
        "train": ["a", "b"],
        "validation": ["c"],
    }
    assert list(hub_rows.load_splits("peta@folder", "trainval")) == ["trainval"]


def test_a_source_that_is_gone_is_said(tmp_path):
    with pytest.raises(ValueError, match="must still be in its source"):
        read_again(f"folder:{tmp_path}", "gone.png")


def test_metadata_types():
    rows = [{"a": "1", "b": "007", "c": "1.50", "d": "x", "e": True, "f": 1, "g": "true"}]
    rows.append({"a": "2", "b": "8", "c": "2", "d": "1", "e": None, "f": 0.5, "g": "False"})
    kinds = {name: str(kind) for name, kind in column_types(rows).items()}
    assert kinds == dict(
        zip("abcdefg", "int64 string double string bool double bool".split(), strict=True)
    )
    assert column_name("embedding") == "metadata_embedding"
    with pytest.raises(ValueError, match=r"column 'floor' must hold int64, got 1\.5"):
        convert(1.5, "floor", pa.int64())


def test_metadata_of_another_type_is_refused_and_new_columns_are_added(own, tmp_path):
    folder = tmp_path / "more"
    folder.mkdir()
    Image.new("RGB", (9, 9), "green").save(folder / "a.png")
    lines = folder / "metadata.jsonl"
    lines.write_text(json.dumps({"file_name": "a.png", "floor": "roof", "id": 5}))
    with pytest.raises(ValueError, match="column 'floor' must hold int64, got 'roof'"):
        own.add(str(folder))
    lines.write_text(json.dumps({"file_name": "a.png", "floor": 7, "id": 5}))
    own.add(str(folder))
    (row,) = rows_of(own, "floor = 7")
    assert row["metadata_id"] == 5
    assert rows_of(own, "floor = 1")[0]["metadata_id"] is None


# ---- searching ----------------------------------------------------------------------------------

QUERIES = [{"hat": True}, ["backpack", "red"], {"female": True, "skirt": False}]


def expected(gallery: Gallery, query, keep=lambda row: True) -> list[str]:
    """Ids by numpy over the rows of the table, best first."""
    rows = [row for row in rows_of(gallery) if keep(row)]
    vectors = np.array([row["embedding"] for row in rows], np.float64)
    vector = gallery.embedder.embed_queries([query])[0].astype(np.float64)
    return [rows[i]["id"] for i in np.argsort(-(vectors @ vector), kind="stable")]


@pytest.mark.parametrize("query", QUERIES, ids=str)
def test_the_ranking_is_that_of_numpy(gallery, query):
    found = gallery.search(query, top_k=NUM_CROPS)
    assert [hit.id for hit in found.hits] == expected(gallery, query)
    vector = gallery.embedder.embed_queries([query])[0]
    best = next(row for row in rows_of(gallery) if row["id"] == found.hits[0].id)
    assert found.hits[0].score == pytest.approx(float(np.dot(best["embedding"], vector)), abs=1e-5)


def test_a_sentence_is_read_and_what_it_does_not_say_is_noted(gallery):
    found = gallery.search("a tall person with a hat and without a backpack", top_k=3)
    same = gallery.search({"hat": True, "backpack": False}, top_k=3)
    assert found.hits == same.hits
    assert "tall" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("camera = 'c1'", lambda row: row["camera"] == "c1"),
        ("shop = 'it''s' AND floor < 2", lambda row: row["shop"] and row["floor"] < 2),
        ("time >= '2024-05-10'", lambda row: row["time"] >= datetime(2024, 5, 10)),
        ("hat", lambda row: row["attributes"]["hat"] > 0.5),
        (
            "NOT hat OR floor IN (1, 3)",
            lambda row: row["attributes"]["hat"] <= 0.5 or row["floor"] % 2,
        ),
        ("image LIKE 'a/%' AND shop IS NULL", lambda row: row["image"][0] == "a"),
        ("floor BETWEEN 1 AND 2", lambda row: 1 <= row["floor"] <= 2),
    ],
)
def test_filters_choose_what_python_chooses(gallery, text, keep):
    found = gallery.search({"hat": True}, filter=text, top_k=NUM_CROPS)
    wanted = expected(gallery, {"hat": True}, keep)
    assert [hit.id for hit in found.hits] == wanted
    assert 0 < len(wanted) < NUM_CROPS


def test_matched_attributes_are_those_of_the_classifier(gallery):
    rows = {row["id"]: row["attributes"] for row in rows_of(gallery)}
    for hit in gallery.search({"hat": True, "red": False}, top_k=NUM_CROPS).hits:
        chances = {"hat": rows[hit.id]["hat"], "no red": 1 - rows[hit.id]["red"]}
        assert {**hit.matched, **hit.missed} == pytest.approx(chances)
        assert all(chance > 0.5 for chance in hit.matched.values())
        assert all(chance <= 0.5 for chance in hit.missed.values())


def test_an_example_image_finds_itself(gallery, crops):
    path = images_of(crops)[11]
    found = gallery.search(image=str(path))
    assert found.hits[0].id == hash_of(path)
    assert found.hits[0].score == pytest.approx(1, abs=1e-5)
    assert gallery.search(image=path.read_bytes()).hits == found.hits


def test_both_together_score_the_weighted_mean(gallery, crops):
    path, query = images_of(crops)[5], {"hat": True}
    alone = {"top_k": NUM_CROPS}
    by_query = {hit.id: hit.score for hit in gallery.search(query, **alone).hits}
    by_image = {hit.id: hit.score for hit in gallery.search(image=str(path), **alone).hits}
    found = gallery.search(query, str(path), image_weight=0.3, **alone).hits
    for hit in found:
        assert hit.score == pytest.approx(0.7 * by_query[hit.id] + 0.3 * by_image[hit.id], abs=1e-5)
    scores = [hit.score for hit in found]
    assert scores == sorted(scores, reverse=True)


def test_a_reader_follows_the_writer(own, tmp_path):
    reader = Gallery.open(own.table.uri, own.embedder)
    first = reader.search({"hat": True}).hits[0]
    assert own.remove(ids=[first.id]) == 1
    assert first.id not in {hit.id for hit in reader.search({"hat": True}, top_k=NUM_CROPS).hits}
    (tmp_path / "x").mkdir()
    Image.new("RGB", (7, 7), "white").save(tmp_path / "x" / "new.png")
    own.add(str(tmp_path / "x"))
    assert reader.table.count() == NUM_CROPS


# ---- filters ------------------------------------------------------------------------------------

COLUMNS = {
    "camera": column("camera", "text"),
    "time": column("time", "time"),
    "floor": column("floor", "whole"),
    "indoor": column("indoor", "flag"),
    "hat": column("attributes.hat", "probability"),
    "upper colour red": Column("`attributes`.`r`", "probability"),
}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("camera =", "a value in single quotes"),
        ("camera = 'c1' AND", "the name of a column must follow"),
        ("(camera = 'c1'", r"'\)' must follow"),
        ("camera = 'c1') OR (hat", "AND, OR or the end must follow"),
        ("camera = 'c1'; DROP TABLE crops", "cannot read '; DROP"),
        ("camera = 'c1' -- x", "cannot read '-- x'"),
        ("camera = 'c1' OR 1 = 1", "the name of a column must follow, not '1'"),
        ("camera = 'c1' UNION SELECT id FROM crops", "must follow, not 'UNION'"),
        ("camera IN (SELECT camera FROM crops)", "a value in single quotes"),
        ("sleep(10)", "there is no column 'sleep'"),
        ("camera = camera", "a value in single quotes"),
        ("camra = 'c1'", "did you mean camera"),
        ("camera = 'it's'", "must follow, not 's'|cannot read"),
        ("floor = 'c1'", "a number for"),
        ("floor = 1e", "cannot read|a number"),
        ("floor = 9223372036854775808", "a whole number for"),
        ("hat < 1e999", "too large a number"),
        ("time > 'yesterday'", "no time like"),
        ("camera", "a comparison must follow"),
        ("indoor = 1", "TRUE or FALSE"),
        ("hat /* x */ > 0.5", "cannot read"),
        ("(" * 99 + "hat" + ")" * 99, "levels of brackets"),
        ("", "a condition of at most"),
        ("hat OR " * 5_000 + "hat", "a condition of at most"),
    ],
)
def test_what_is_no_condition_is_one_clear_error(text, reason):
    with pytest.raises(ValueError, match=rf"`filter` must be .*(?:{reason})"):
        compile_filter(text, COLUMNS)


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("Camera<>'a;--'", "`camera` <> 'a;--'"),
        ('"upper colour red" >= -.5', "`attributes`.`r` >= -.5"),
        ("not not indoor", "(NOT (NOT `indoor`))"),
        ("hat or indoor and floor=1", "(`attributes`.`hat` > 0.5 OR (`indoor` AND `floor` = 1))"),
        ("time < '2024-05-01T02:00+02:00'", "`time` < TIMESTAMP '2024-05-01 00:00:00'"),
        ("camera is not null", "`camera` IS NOT NULL"),
        ("floor in (+5, 1e3, -2)", "`floor` IN (5, 1000, -2)"),
        ("hat < +.5", "`attributes`.`hat` < .5"),
        ("camera not in ('a')", "`camera` NOT IN ('a')"),
    ],
)
def test_filters_are_written_anew(text, sql):
    assert compile_filter(text, COLUMNS) == sql


# ---- index --------------------------------------------------------------------------------------


def test_an_index_that_looks_everywhere_finds_what_numpy_finds(own):
    own.table.build_index(IndexSettings(IVF, num_partitions=4, num_probes=4, refine=40))
    assert own.table.has_index
    for query in QUERIES:
        assert [hit.id for hit in own.search(query).hits] == expected(own, query)[:10]
        found = own.search(query, filter="camera = 'c2'").hits
        keep = expected(own, query, lambda row: row["camera"] == "c2")
        assert [hit.id for hit in found] == keep[:10]


def test_a_gallery_that_grows_gets_an_index(own, tmp_path, monkeypatch):
    monkeypatch.setattr("clear_par.gallery.index_settings.EXACT_BELOW", NUM_CROPS + 1)
    assert own.info()["index"]["kind"] == "exact"
    Image.new("RGB", (7, 7), "white").save(tmp_path / "new.png")
    (tmp_path / "x").mkdir()
    (tmp_path / "new.png").rename(tmp_path / "x" / "new.png")
    own.add(str(tmp_path / "x"))
    facts = own.info()["index"]
    assert (facts["kind"], facts["indexed_rows"], facts["rows_outside_index"]) == (IVF, 41, 0)


def test_tuning_measures_with_descriptions_and_keeps_what_it_chose(own):
    lines = []
    trials = own.tune(num_queries=6, say=lines.append)
    assert trials[-1].settings.kind == "exact"
    assert trials[0].worst == trials[-1].recall == 1
    trials = own.tune(num_queries=6, recall=0.9, kind=IVF, say=lines.append)
    stored = GalleryTable.open(own.table.uri).index
    assert stored == trials[-1].settings
    assert stored.kind == IVF
    assert stored.measured["recall"] >= 0.9
    assert stored.measured["queries"] == 6
    assert len(stored.measured["recall_filtered"]) == len(trials[-1].filtered)
    assert all("recall@10" in line for line in lines)


def test_a_choice_of_tuning_stays_until_the_gallery_has_doubled(own, monkeypatch):
    monkeypatch.setattr("clear_par.gallery.index_settings.EXACT_BELOW", 1)
    own.tune(num_queries=3, kind="exact", say=str)
    own.table.settle()
    assert own.info()["index"]["kind"] == "exact"
    few = {"rows": NUM_CROPS // 2 - 1}
    own.table.store_index_settings(IndexSettings(measured=few))
    own.table.settle()
    assert own.info()["index"]["kind"] == IVF


def test_crops_to_tune_with_are_spread_over_parts_of_any_size(gallery, monkeypatch):
    monkeypatch.setattr("clear_par.gallery.table.BATCH", 7)
    monkeypatch.setattr(tuning, "SAMPLE", 3)  # every 13th of 40: not one in each part
    found = tuning._sample(gallery.table)
    wanted = [list(row["attributes"].values()) for row in rows_of(gallery)[::13]]
    np.testing.assert_array_equal(found, np.array(wanted, np.float32))


def test_the_truth_of_tuning_is_that_of_numpy(gallery):
    queries = gallery.embedder.embed_queries(QUERIES)
    found = exact_ids(gallery.table, queries, 10)
    assert found == [expected(gallery, query)[:10] for query in QUERIES]


# ---- removal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("indexed", [False, True])
def test_what_is_removed_is_nowhere_on_the_disk(own, indexed):
    if indexed:
        own.table.build_index(IndexSettings(IVF, 4, 4, 40))
    row = rows_of(own)[3]
    embedding = np.array(row["embedding"], np.float32).tobytes()
    old_index = {path.name for path in Path(own.table.uri).rglob("_indices/*")}
    assert holding(own, embedding)
    assert own.remove(ids=[row["id"]]) == 1
    assert holding(own, embedding) == []
    assert holding(own, row["id"].encode()) == []
    assert not old_index & {path.name for path in Path(own.table.uri).rglob("_indices/*")}
    facts = own.info()
    assert (facts["crops"], facts["versions"], facts["removed_rows_on_disk"]) == (39, 1, 0)
    assert own.table.has_index == indexed
    assert row["id"] not in {hit.id for hit in own.search({"hat": True}, top_k=40).hits}


@pytest.mark.parametrize("again", [False, True])
def test_a_removal_that_stopped_is_shown_and_finished(own, monkeypatch, again):
    def stop(self):
        raise KeyboardInterrupt

    row = rows_of(own)[3]
    embedding = np.array(row["embedding"], np.float32).tobytes()
    with monkeypatch.context() as patch:
        patch.setattr(GalleryTable, "purge", stop)
        with pytest.raises(KeyboardInterrupt):
            own.remove(ids=[row["id"]])
    facts = own.info()
    assert (facts["crops"], facts["removed_rows_on_disk"]) == (39, 1)
    assert facts["removal_unfinished"]
    assert holding(own, embedding)
    assert own.remove(ids=[row["id"]] if again else []) == 0
    assert holding(own, embedding) == []
    assert not own.info()["removal_unfinished"]


def test_removal_by_filter_and_source_and_of_everything(own):
    assert own.remove(filter="camera = 'c1' AND floor = 1") == 4
    assert own.remove(source="folder:elsewhere") == 0
    (source,) = own.info()["sources"]
    assert own.remove(source=source) == 36
    assert own.search({"hat": True}).hits == []
    assert own.info()["crops"] == 0


# ---- the model belongs to the gallery -----------------------------------------------------------


def test_another_model_is_refused(gallery, gallery_model, crops):
    other = Embedder.load(str(gallery_model), str(gallery_model / "adapters" / "other"), "cpu")
    with pytest.raises(ValueError, match="the adapter that made it"):
        Gallery.build(gallery.table.uri, str(crops), other, OPTIONS)
    changed = Embedder.load(str(gallery_model), device="cpu")
    with torch.no_grad():
        changed.model.classifier.bias[0] += 1e-3
    with pytest.raises(ValueError, match="the model that made it"):
        Gallery.open(gallery.table.uri, changed)
    assert gallery.table.count() == NUM_CROPS


# ---- command line -------------------------------------------------------------------------------


def run(*arguments) -> None:
    gallery_clear.main([str(argument) for argument in arguments])


@pytest.fixture
def with_model(embedder, monkeypatch):
    """Commands use the model that is loaded already."""
    monkeypatch.setattr(gallery_clear, "load_embedder", lambda *arguments: embedder)


def test_commands_from_a_folder_to_a_ranked_list(with_model, crops, tmp_path, capsys):
    place = tmp_path / "people"
    run("build", place, crops, "--set", "camera=gate", "--batch-size", 16, "--keep-jpeg")
    assert f"{NUM_CROPS} crops added" in capsys.readouterr().out
    figure = tmp_path / "out" / "found.png"
    run("search", place, '{"hat": true}', "--format", "json", "--figure", figure, "--top-k", 4)
    (answer,) = json.loads(capsys.readouterr().out)
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4]
    assert answer["hits"][0]["camera"] == "gate"
    with Image.open(figure) as drawn:
        assert drawn.format == "PNG"
    run("remove", place, "--id", answer["hits"][0]["id"])
    assert "1 crops removed, 39 left; 1 version on the disk, 0 removed" in capsys.readouterr().out
    run("info", place, "--json")
    assert json.loads(capsys.readouterr().out)["crops"] == NUM_CROPS - 1


def test_many_searches_from_a_file(with_model, gallery, tmp_path, capsys):
    lines = [{"query": {"hat": True}, "top_k": 2}, {"query": "red skirt", "filter": "floor = 1"}]
    path = tmp_path / "queries.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    output = tmp_path / "found.csv"
    run("search", gallery.table.uri, "--queries", path, "--format", "csv", "--output", output)
    rows = list(csv.DictReader(io.StringIO(output.read_text())))
    assert [row["query"] for row in rows] == ["1"] * 2 + ["2"] * 10
    assert {row["floor"] for row in rows[2:]} == {"1"}
    wanted = gallery.search({"hat": True}, top_k=2).hits
    assert [row["id"] for row in rows[:2]] == [hit.id for hit in wanted]
    (tmp_path / "queries.txt").write_text("a hat\n\nred skirt\n")
    run("search", gallery.table.uri, "--queries", tmp_path / "queries.txt", "--top-k", 1)
    assert capsys.readouterr().out.count(" ms]") == 2


def test_a_picture_stands_for_a_crop_that_is_gone(with_model, embedder, tmp_path, capsys):
    (tmp_path / "x").mkdir()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "x" / "a.png")
    Gallery.build(str(tmp_path / "g"), str(tmp_path / "x"), embedder)
    (tmp_path / "x" / "a.png").unlink()
    run("search", tmp_path / "g", "a hat", "--figure", tmp_path / "found.png")
    assert "1 crops are no longer in their source" in capsys.readouterr().err


@pytest.fixture
def bad(crops, tmp_path) -> dict[str, Path]:
    """Places of bad input."""
    places = {name: tmp_path / name for name in ("empty", "broken", "text.txt", "new", "other")}
    places["empty"].mkdir()
    places["broken"].mkdir()
    (places["broken"] / "a.png").write_text("no image")
    places["text.txt"].write_text("no image")
    places["other"].mkdir()
    (places["other"] / "file").touch()
    places["odd.jsonl"] = tmp_path / "odd.jsonl"
    places["odd.jsonl"].write_text('{"query": "a hat", "image_weight": "much"}')
    places["damaged"] = tmp_path / "damaged"
    lancedb.connect(places["damaged"]).create_table("crops", data=[{"a": 1}])
    for manifest in places["damaged"].rglob("*.manifest"):
        manifest.write_bytes(manifest.read_bytes()[:20])
    for name, table in (
        ("strange", b"file_name\nother.png"),
        ("unread", b"file_name\n\xff.png"),
        ("twice", b"file_name,a.b,a_b\na.png,1,2"),
    ):
        places[name] = tmp_path / name
        places[name].mkdir()
        Image.new("RGB", (9, 9), "blue").save(places[name] / "a.png")
        (places[name] / "metadata.csv").write_bytes(table)
    return {**places, "crops": crops}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("build {new} {empty}", "`images` must hold images .*empty' with none"),
        ("build {new} {text.txt}", "`images` must be a folder, a zip .* the file '.*text.txt'"),
        ("build {new} {broken}", "must hold images that can be read, .*a.png: UnidentifiedImage"),
        ("build {new} no/such", "`images` must be a folder, a zip .* got 'no/such'"),
        ("build {other} {crops}", "`gallery` must be a new folder or a gallery, got '.*other'"),
        ("build {new} {crops} --name-pattern (", "`name_pattern` must be a regular expression"),
        ("build {new} {crops} --set camera", "`--set` must be NAME=VALUE, got 'camera'"),
        ("build {new} {crops} --batch-size 0", "`batch_size` must be at least 1, got 0"),
        ("search {new} hat", "`gallery` must be a gallery, got '.*new'; make one with `build`"),
        ("search {gallery} spaceship", "`text` must name an attribute .* got 'spaceship'"),
        ('search {gallery} {{"wings":true}}', ".*wings"),
        ("search {gallery} {{hat", "`query` must be a sentence or JSON"),
        ("search {gallery}", "`query` or `image` must be given, got neither"),
        ("search {gallery} hat --top-k 0", "`top_k` must be from 1 to"),
        ("search {gallery} hat --filter camera=", "`filter` must be a condition over columns"),
        ("search {gallery} hat --filter floor>1.5", "a whole number for `floor` must follow"),
        ("search {gallery} hat --filter floor<1e30", "a whole number for `floor` must follow"),
        ("search {gallery} --queries {odd.jsonl}", "`image_weight` must be from 0 to 1, got"),
        ("info {damaged}", "`gallery` must be whole, got .* damaged: "),
        ("build {new} {twice}", "got 'a_b' and another that both become the column 'a_b'"),
        ("build {new} {strange}", "`images` must hold what its metadata names, .*'other.png'"),
        ("build {new} {unread}", "`images` must have rows with a 'file_name' in .*metadata.csv"),
        ("search {gallery} hat --filter 1=1;DROP", "`filter` must be a condition over columns"),
        ("search {gallery} --image {text.txt}", "`image` must be a readable image"),
        ("search {gallery} --image no/such.png", "`image` must be a readable file"),
        ("search {gallery} --queries {text.txt}x", "`--queries` must be readable"),
        ("search {gallery} --queries {empty.txt}", "`--queries` must hold searches, got"),
        ("remove {gallery}", "`--id`, `--filter`, `--source` or `--finish` must be given"),
        ("remove {gallery} --filter wings", "there is no column 'wings'"),
        ("info {empty}", "`gallery` must be a gallery"),
        ("info {gallery} --tune --recall 2", "`recall` in"),
    ],
)
def test_bad_input_is_one_clear_error(with_model, gallery, bad, tmp_path, arguments, message):
    places = {**bad, "gallery": gallery.table.uri, "empty.txt": tmp_path / "empty.txt"}
    (tmp_path / "empty.txt").touch()
    words = [fill_in(word, places) for word in arguments.split(" ")]
    with pytest.raises(SystemExit) as error:
        run(*words)
    assert str(error.value).startswith("clear-gallery: error: ")
    assert "\n" not in str(error.value)
    assert re.search(message, str(error.value)), error.value
    assert not bad["new"].exists()  # nothing is left of what failed


def test_without_ray_the_remedy_is_named(with_model, gallery, monkeypatch):
    monkeypatch.setitem(sys.modules, "lance_ray", None)
    with pytest.raises(SystemExit, match=r"error: `ray` must be installed .*gallery-ray"):
        run("search", gallery.table.uri, "hat", "--ray", "local")


@pytest.mark.parametrize("name", ["filters", "hub_rows", "metadata", "options", "searching"])
def test_examples_in_the_documentation_run(name):
    result = doctest.testmod(importlib.import_module(f"clear_par.gallery.{name}"))
    assert result.failed == 0
    assert result.attempted > 0


def fill_in(word: str, places: dict) -> str:
    for name, place in places.items():
        word = word.replace(f"{{{name}}}", str(place))
    return word.replace("{{", "{").replace("}}", "}")


def test_help_teaches_without_loading_a_model():
    code = "import sys; from clear_par.gallery_clear import main; sys.argv[0] = 'clear-gallery'\n"
    code += "try: main(['search', '--help'])\nfinally: print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "FILTER is a condition" in result.stdout
    assert result.stdout.rstrip().endswith("False")
