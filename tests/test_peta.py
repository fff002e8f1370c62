import io
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset, Image
from datasets.exceptions import DatasetGenerationError
from PIL import Image as PillowImage
from PIL import ImageFile
from scipy.io import loadmat, savemat

from clear_par.datasets_scripts.person_builder import PersonRecords
from clear_par.datasets_scripts.person_dataset import load_person_dataset, person_features
from clear_par.datasets_scripts.peta import PETA
from clear_par.datasets_scripts.peta_annotation import (
    SUBSET_SIZES,
    SUBSETS,
    derive_mapping,
    read_annotation,
    read_mapping,
)
from clear_par.datasets_scripts.verification import (
    VerificationReport,
    image_defect,
)
from clear_par.tests.small_builds import deviations, encoded, number_shown

# 40 images: names with spaces, commas and capitals, persons of 6, 1 and 2 images. Sorted as text,
# person 100 comes before person 3 and `Right` before `back`, as in the real data.
FILES = sorted(
    [f"3DPeS/archive/{person}_{k} FRAME, {k}_RGB.bmp" for person in (100, 3) for k in range(6)]
    + [f"CUHK/archive/{person:04d}.png" for person in range(2, 12)]
    + [f"VIPeR/archive/{p:03d}_{side}.bmp" for p in range(9) for side in ("Right", "back")]
)
SIZES = {"train": 20, "validation": 4, "test": 16, "trainval": 24}


pytest_plugins = ["clear_par.tests.small_builds"]
pytestmark = pytest.mark.usefixtures("no_progress_bars")


@pytest.fixture
def builder_class():
    return PETA


def write_annotation(path, data, attributes, partitions):
    struct = {
        "data": data.astype(np.uint16),
        "attribute": np.array(attributes, dtype=object).reshape(-1, 1),
        "selected_attribute": np.arange(5, 40, dtype=np.uint8).reshape(1, -1),
        "partion_attribute": np.empty((len(partitions), 1), dtype=object),
    }
    for k, partition in enumerate(partitions):
        struct["partion_attribute"][k, 0] = {
            name: np.asarray(numbers, dtype=np.uint16).reshape(-1, 1)
            for name, numbers in partition.items()
        }
    savemat(path, {"peta": struct})


class SmallPETA:
    """A data set of 40 images in a folder, and what it was made of."""

    def __init__(self, root):
        self.root = root
        rng = np.random.default_rng(0)
        persons = [(f.split("/")[0], int(re.match(r"\d+", f.split("/")[2])[0])) for f in FILES]
        global_ids = {person: k for k, person in enumerate(dict.fromkeys(persons), start=1)}
        head = [
            (number, global_ids[p], SUBSETS.index(p[0]) + 1, p[1])
            for number, p in enumerate(persons, start=1)
        ]
        self.labels = rng.integers(0, 2, (40, 105))
        self.labels[30:] = self.labels[10:20]  # categories that come back
        self.data = np.hstack([head, self.labels])
        self.attributes = list(PETA.schema().attributes)
        self.partitions = []
        for _ in range(5):
            numbers = rng.permutation(40) + 1
            parts = {"train": numbers[:20], "val": numbers[20:24], "test": numbers[24:]}
            self.partitions.append(parts)
        self.write_annotation()

    def write_annotation(self):
        write_annotation(self.root / "PETA.mat", self.data, self.attributes, self.partitions)

    def path(self, number):
        renamed = self.root / f"images/{number:05d}.png"
        return renamed if renamed.exists() else self.root / "PETA dataset" / FILES[number - 1]

    def write_images(self, layout):
        for number, file in enumerate(FILES, start=1):
            path = self.root / "PETA dataset" / file
            if layout == "renamed":
                path = self.root / f"images/{number:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(number, ("PNG", "JPEG", "BMP")[number % 3]))

    def write_mapping(self, files=FILES):
        lines = [
            f"PETA/PETA dataset/{file},PETA/images/{number:05d}.png\n"
            for number, file in enumerate(files, start=1)
        ]
        # The order of the lines says nothing.
        (self.root / "peta_file_mapping.txt").write_text("".join(reversed(lines)))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A whole small data set in the published layout, with the counts that go with it."""
    monkeypatch.setattr(PETA, "split_sizes", SIZES)
    monkeypatch.setattr(PETA, "subset_sizes", {"3DPeS": 12, "CUHK": 10, "VIPeR": 18})
    monkeypatch.setattr(PETA, "num_persons", 21)
    root = tmp_path / "some data"
    root.mkdir()
    small = SmallPETA(root)
    small.write_images("published")
    return small


@pytest.fixture
def renamed(small):
    shutil.rmtree(small.root / "PETA dataset")
    small.write_images("renamed")
    return small


# ---- rows


@pytest.mark.parametrize("layout", ["derived", "mapped", "renamed"])
def test_rows_are_those_of_the_annotation(small, build, layout):
    if layout == "mapped":
        small.write_mapping()
    if layout == "renamed":
        shutil.rmtree(small.root / "PETA dataset")
        small.write_images("renamed")
    data = build(small).as_dataset()
    assert {split: len(rows) for split, rows in data.items()} == SIZES
    schema = PETA.schema()
    parts = small.partitions[0]
    expected = {"train": parts["train"], "validation": parts["val"], "test": parts["test"]}
    expected["trainval"] = [*parts["train"], *parts["val"]]
    seen_categories = {}
    for split, rows in data.items():
        assert rows.features["labels"].length == len(schema.attributes) == 105
        assert rows["image_name"][:] == [f"{number:05d}.png" for number in expected[split]]
        for number, row in zip(expected[split], rows, strict=True):
            assert number_shown(row["image"]) == number
            assert row["labels"] == small.labels[number - 1].tolist()
            assert row["person_id"] == small.data[number - 1, 1]
            assert SUBSETS[row["subset"]] == FILES[number - 1].split("/")[0]
            assert row["camera"] == -1
            seen_categories.setdefault(row["category_id"], set()).add(int(number))
    # Rows 31 to 40 repeat the labels of 11 to 20; numbers follow the first appearance.
    assert seen_categories == {k: {k + 1, k + 21} if 10 <= k < 20 else {k + 1} for k in range(30)}


def test_every_partition_is_its_own_configuration(small, build):
    for k in range(5):
        rows = build(small, config_name=f"partition{k}").as_dataset(split="validation")
        assert rows["image_name"][:] == [f"{n:05d}.png" for n in small.partitions[k]["val"]]


def test_images_are_pointed_at_not_copied(small, build):
    rows = build(small).as_dataset(split="trainval").cast_column("image", Image(decode=False))
    for image in rows["image"]:
        assert image["bytes"] is None
        assert Path(image["path"]).is_absolute()
        assert small.root in Path(image["path"]).parents


def test_relative_data_dir_gives_absolute_paths(small, build, monkeypatch):
    monkeypatch.chdir(small.root.parent)
    rows = build(SimpleNamespace(root="some data")).as_dataset(split="test")
    monkeypatch.chdir("/")
    assert number_shown(rows[0]["image"]) == small.partitions[0]["test"][0]


def test_parquet_carries_the_images(small, tmp_path):
    builder = PETA(data_dir=small.root, cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare(output_dir=str(tmp_path / "out"), file_format="parquet")
    shutil.rmtree(small.root)
    rows = Dataset.from_parquet(str(tmp_path / "out/peta-test.parquet"))
    assert rows.features == person_features(PETA.schema(), **PETA.extra_features)
    assert [number_shown(image) for image in rows["image"]] == list(small.partitions[0]["test"])


def test_streaming_gives_the_same_rows(small, build):
    builder = build(small)
    stored, streamed = builder.as_dataset("validation"), builder.as_streaming_dataset("validation")
    assert [row["labels"] for row in streamed] == stored["labels"][:]


def test_load_person_dataset(small, tmp_path):
    where = {"data_dir": small.root, "cache_dir": tmp_path / "cache"}
    rows = load_person_dataset("peta", split="test[:3]", config_name="partition2", **where)
    assert rows["image_name"][:] == [f"{n:05d}.png" for n in small.partitions[2]["test"][:3]]
    with pytest.raises(ValueError, match=r"`dataset` must be one of .*'peta'.*, got 'pet'"):
        load_person_dataset("pet", **where)
    with pytest.raises(ValueError, match=r"`split` must be made of the splits of .peta., train"):
        load_person_dataset("peta", split="val", **where)


def test_load_person_dataset_without_data_dir(tmp_path):
    sizes = {"train_size": 1, "validation_size": 1, "test_size": 2}
    rows = load_person_dataset("synthetic", split="test", cache_dir=tmp_path, **sizes)
    common = person_features(PETA.schema())
    assert rows.features == common
    assert len(rows) == 2


@pytest.mark.parametrize("place", [".", "PETA", "PETA dataset", "PETA/PETA dataset"])
def test_annotation_and_images_are_found_in_the_usual_places(small, build, place):
    target = small.root.parent / "moved" / place
    target.mkdir(parents=True)
    shutil.copy(small.root / "PETA.mat", target)
    shutil.copytree(small.root / "PETA dataset", target, dirs_exist_ok=True)
    builder = build(SimpleNamespace(root=small.root.parent / "moved"))
    assert number_shown(builder.as_dataset("test")[0]["image"]) == small.partitions[0]["test"][0]


def test_no_torch_is_imported():
    code = "import sys, clear_par.datasets_scripts.peta; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- verification


def test_a_whole_data_set_has_no_deviation(small, build):
    report = build(small).report
    assert report == VerificationReport("peta/partition0", num_images=40)
    assert report.is_complete


def test_missing_image_is_named(renamed, build, caplog):
    renamed.path(7).unlink()
    report, text = deviations(build, renamed)
    assert list(report.missing) == ["00007.png"]
    assert "39 of 40 images" in text
    assert "00007.png: no file 00007.png" in text
    assert "allow_partial=True" in text

    with caplog.at_level(logging.WARNING):
        builder = build(renamed, allow_partial=True)
    assert "1 missing images" in caplog.text
    data = builder.as_dataset()
    assert sum(len(data[split]) for split in ("train", "validation", "test")) == 39
    assert "00007.png" not in {name for rows in data.values() for name in rows["image_name"]}
    assert builder.report.missing == report.missing
    # Numbers of categories do not depend on the images that happen to be there.
    for rows in data.values():
        for name, category in zip(rows["image_name"], rows["category_id"], strict=True):
            number = int(name[:5])
            assert category == (number - 21 if number > 30 else number - 1)


def test_the_warning_returns_when_the_cache_is_used(renamed, build, caplog):
    renamed.path(7).unlink()
    build(renamed, allow_partial=True)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        build(renamed, allow_partial=True)
    assert "00007.png" in caplog.text


def test_mapping_file_tells_which_image_is_missing(small, build):
    small.write_mapping()
    small.path(2).unlink()
    report, _ = deviations(build, small)
    assert report.missing == {"00002.png": "no file 3DPeS/archive/100_1 FRAME, 1_RGB.bmp"}
    rows = build(small, allow_partial=True).as_dataset("trainval+test")
    assert len(rows) == 39
    assert all(f"{number_shown(row['image']):05d}.png" == row["image_name"] for row in rows)


def test_without_mapping_a_missing_image_spoils_only_its_person(small, build):
    small.path(2).unlink()
    report, text = deviations(build, small)
    assert list(report.missing) == [f"{number:05d}.png" for number in range(1, 7)]
    assert "peta_file_mapping.txt from https://github.com/speckean/upar_challenge" in text
    rows = build(small, allow_partial=True).as_dataset("trainval+test")
    assert len(rows) == 34
    assert all(f"{number_shown(row['image']):05d}.png" == row["image_name"] for row in rows)


def test_mapping_of_other_data_is_an_error(small, build):
    small.write_mapping([*FILES[12:22], *FILES[:12], *FILES[22:]])
    report, text = deviations(build, small, allow_partial=True)
    assert len(report.errors) == 22
    assert "image 1 the file CUHK/archive/0002.png, but it shows person 100 of 3DPeS" in text


@pytest.mark.parametrize("line", ["PETA/images/00001.png", "a/b/c.png,PETA/images/1.jpg"])
def test_a_broken_mapping_line_is_named(tmp_path, line):
    path = tmp_path / "peta_file_mapping.txt"
    path.write_text(f"PETA/PETA dataset/CUHK/archive/a, b.png,PETA/images/00002.png\n{line}\n")
    with pytest.raises(ValueError, match=f"got '{re.escape(line)}' in line 2"):
        read_mapping(path)
    path.write_text("PETA/PETA dataset/CUHK/archive/a, b.png,PETA/images/00002.png\n")
    assert read_mapping(path) == {2: "CUHK/archive/a, b.png"}


def test_what_is_no_image_of_the_set_is_passed_over(small, build):
    for name in ("Label.txt", "._0002.png", "Thumbs.db"):
        (small.root / "PETA dataset/CUHK/archive" / name).write_bytes(b"other")
    assert build(small).report.is_complete


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda jpeg: jpeg[:-100], "truncated"),
        (lambda _: encoded(8, "PNG")[:-400], "truncated"),
        (lambda _: encoded(8, "BMP")[:-400], "truncated"),
        (lambda _: b"", "cannot identify"),
        (lambda _: b"<html>404</html>", "cannot identify"),
    ],
)
def test_broken_image_is_named(renamed, build, damage, message):
    path = renamed.path(7)
    path.write_bytes(damage(encoded(7, "JPEG")))
    report, text = deviations(build, renamed)
    assert list(report.broken) == ["00007.png"]
    assert message in report.broken["00007.png"]
    assert str(path) in text
    assert len(build(renamed, allow_partial=True).as_dataset("trainval+test")) == 39


def test_a_jpeg_that_ends_in_zeros_is_named(renamed, build):
    pixels = np.random.default_rng(0).integers(0, 255, (160, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    PillowImage.fromarray(pixels).save(file, "JPEG")
    whole = file.getvalue()
    renamed.path(7).write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    with PillowImage.open(renamed.path(7)) as image:
        image.load()  # no error: half of it is grey, and nothing says so
    report, _ = deviations(build, renamed)
    assert "overwritten with zeros" in report.broken["00007.png"]
    renamed.path(7).write_bytes(whole + bytes(100))  # whole, with padding behind it
    assert build(renamed).report.is_complete


def test_an_image_of_one_colour_is_named(renamed, build):
    PillowImage.new("RGB", (20, 40)).save(renamed.path(7))
    report, _ = deviations(build, renamed)
    assert "single colour" in report.broken["00007.png"]


def test_truncation_is_found_although_pillow_is_told_to_bear_it(renamed, build, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = renamed.path(7)
    path.write_bytes(path.read_bytes()[:-300])
    report, _ = deviations(build, renamed)
    assert list(report.broken) == ["00007.png"]
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_verification_of_images_can_be_left_out(renamed, build):
    renamed.path(7).write_bytes(b"")
    assert build(renamed, verify_images=False).report.is_complete


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("BMP", "RGB"),
        ("BMP", "P"),
        ("BMP", "1"),
        ("PNG", "RGBA"),
        ("PNG", "I;16"),
        ("GIF", "P"),
        ("TIFF", "CMYK"),
    ],
)
def test_content_decides_not_the_ending(tmp_path, kind, mode):
    path = tmp_path / "00001.png"
    with PillowImage.open(io.BytesIO(encoded(20, "PNG"))) as image:
        image.convert(mode).save(path, kind)
    assert image_defect(path) is None


def test_wrong_attribute_name(small, build):
    small.attributes[3] = "personalOlder"
    small.write_annotation()
    report, text = deviations(build, small, allow_partial=True)
    assert "attribute 3 must be `personalLarger60`, got `personalOlder`" in report.errors
    assert "The annotation is not the published one" in text


def test_other_number_of_attributes(small, build):
    small.data, small.attributes = small.data[:, :-1], small.attributes[:-1]
    small.write_annotation()
    report, _ = deviations(build, small)
    assert "there must be 105 attributes, got 104" in report.errors


def test_label_out_of_range(small, build):
    small.data[6, 4 + 10] = 2
    small.data[8, 4 + 10] = 3
    small.write_annotation()
    report, _ = deviations(build, small, allow_partial=True)
    assert report.errors == [
        "labels of `accessoryHat` must be 0 or 1, got [2, 3] in 2 image(s): 00007.png, 00009.png"
    ]


def test_partition_must_be_disjoint_and_cover(small, build):
    parts = small.partitions[0]
    lost, doubled = parts["train"][0], parts["test"][0]
    parts["train"][0] = doubled
    small.write_annotation()
    report, _ = deviations(build, small)
    assert report.errors == [
        f"every image must be in one split, in no split: 1 image(s): {lost:05d}.png",
        f"every image must be in one split, in several splits: 1 image(s): {doubled:05d}.png",
    ]


def test_partition_must_not_repeat_or_leave_the_images(small, build):
    parts = small.partitions[0]
    parts["train"][0] = parts["train"][1]
    parts["test"][0] = 41
    small.write_annotation()
    report, _ = deviations(build, small)
    assert "split `train` must not repeat an image, got 20 rows for 19 images" in report.errors
    assert "split `test` must point at images 1 to 40, got [41]" in report.errors


def test_counts_are_checked(small, build):
    parts = small.partitions[0]
    parts["train"], parts["val"] = parts["train"][:-1], np.append(parts["val"], parts["train"][-1])
    small.data[0, 2] = 3  # an image moves to CUHK
    small.data[0, 1] = 1000
    small.write_annotation()
    report, _ = deviations(build, small)
    assert set(report.errors) >= {
        "split `train` must have 20 images, got 19",
        "split `validation` must have 4 images, got 5",
        "sub-set `3DPeS` must have 12 images, got 11",
        "sub-set `CUHK` must have 10 images, got 11",
        "there must be 21 persons, got 22",
    }


def test_all_deviations_are_listed_at_once(renamed, build):
    renamed.data[0, 4] = 9
    renamed.attributes[40] = "upperBodyBeige"
    renamed.write_annotation()
    for number in range(1, 15):
        renamed.path(number).unlink()
    renamed.path(20).write_bytes(b"")
    report, text = deviations(build, renamed)
    assert (len(report.errors), len(report.missing), len(report.broken)) == (2, 14, 1)
    assert "14 missing images" in text
    assert "... and 4 more" in text
    assert VerificationReport.from_json(report.to_json()) == report


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file", bytes(4096)])
def test_unreadable_annotation(small, build, content):
    (small.root / "PETA.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"PETA.mat` must be the official PETA annotation, got"):
        build(small)


def test_annotation_of_another_structure(small, build):
    savemat(small.root / "PETA.mat", {"peta": {"data": small.data}})
    with pytest.raises(ValueError, match=r"must be the official PETA annotation, got: KeyError"):
        build(small)
    small.partitions.pop()
    small.write_annotation()
    with pytest.raises(ValueError, match=r"must have 5 partitions.*got 4"):
        build(small)
    small.data[3, 0] = 9
    small.partitions.append(small.partitions[0])
    small.write_annotation()
    with pytest.raises(ValueError, match="must list images 1 to 40"):
        build(small)


@pytest.mark.parametrize("absent", ["folder", "argument", "annotation", "images"])
def test_absent_data_says_where_to_get_it(small, build, absent):
    root = small.root
    if absent == "annotation":
        (root / "PETA.mat").unlink()
        found = r"PETA.mat \(not found\) and the images \(40 found as published, 0 renamed\)"
    elif absent == "images":
        shutil.rmtree(root / "PETA dataset")
        found = r"PETA.mat \(found\) and the images \(0 found as published, 0 renamed\).*PETA.mat"
    else:
        root = root / "nowhere" if absent == "folder" else None
        found = "`data_dir` must be a folder, got (None|'.*nowhere')"
    with pytest.raises(FileNotFoundError, match=found) as caught:
        build(SimpleNamespace(root=root))
    assert "http://mmlab.ie.cuhk.edu.hk/projects/PETA.html" in str(caught.value)
    assert "images/00001.png" in str(caught.value)


def test_features_can_be_seen_without_data(tmp_path):
    builder = PETA(cache_dir=str(tmp_path))
    assert builder.info.features["labels"].length == 105
    assert "research only" in builder.info.license


# ---- cache


def test_unchanged_files_are_built_once(small, build, monkeypatch):
    build(small)
    monkeypatch.setattr(PETA, "read_records", lambda *_: pytest.fail("built again"))
    assert len(build(small).as_dataset("train")) == 20
    fresh = PETA(data_dir=small.root, cache_dir=str(small.root.parent / "cache"))
    assert len(fresh.as_dataset("train")) == 20


def test_a_changed_annotation_brings_new_rows(small, build):
    builder = build(small)
    old = builder.as_dataset("train")
    small.data[:, 4:] = 1 - small.data[:, 4:]
    small.write_annotation()
    assert build(small).as_dataset("train")["labels"][0] == [1 - v for v in old["labels"][0]]
    # The object that was made before the change follows, too.
    builder.download_and_prepare()
    new = builder.as_dataset("train")
    assert new["labels"][0] == [1 - value for value in old["labels"][0]]
    assert new._fingerprint != old._fingerprint


def test_a_lost_image_is_noticed_after_the_build(renamed, build):
    build(renamed)
    partial = build(renamed, allow_partial=True)
    renamed.path(7).unlink()
    deviations(build, renamed)
    partial.download_and_prepare()
    assert len(partial.as_dataset("trainval+test")) == 39


def test_an_image_cut_short_is_noticed_after_the_build(renamed, build):
    build(renamed)
    path = renamed.path(7)
    path.write_bytes(path.read_bytes()[:-300])
    report, _ = deviations(build, renamed)
    assert list(report.broken) == ["00007.png"]


def test_edited_code_or_schema_changes_the_cache_key(small, monkeypatch):
    module = sys.modules["clear_par.datasets_scripts.person_builder"]
    here = small.root.parent / "code"
    shutil.copytree(module._HERE, here)
    monkeypatch.setattr(module, "_HERE", here)
    key = PETA._cache_key(str(small.root))
    keys = {key}
    edited = [*module._SHARED_CODE, *PETA.code_files, "schemas/peta.json"]
    for file in edited:
        (here / file).write_text((here / file).read_text() + "\n")
        keys.add(PETA._cache_key(str(small.root)))
    assert len(keys) == len(edited) + 1


def test_a_failed_build_leaves_no_cache(small, build, monkeypatch):
    def stop_in_the_middle(self, row):
        if row == small.partitions[0]["test"][3] - 1:
            raise KeyboardInterrupt
        return whole(self, row)

    whole = PersonRecords.example
    monkeypatch.setattr(PersonRecords, "example", stop_in_the_middle)
    with pytest.raises((KeyboardInterrupt, DatasetGenerationError)):
        build(small)
    left = [path for path in (small.root.parent / "cache").rglob("*") if path.is_file()]
    assert all(path.suffix == ".lock" for path in left)
    monkeypatch.setattr(PersonRecords, "example", whole)
    assert len(build(small).as_dataset("test")) == 16


# ---- the real annotation


@pytest.fixture(scope="module")
def real(shared_folder):
    return read_annotation(shared_folder / "data/peta/PETA.mat")


def test_real_annotation_has_the_published_form(real):
    schema = PETA.schema()
    assert real.labels.shape == (19000, 105)
    assert np.unique(real.labels).tolist() == [0, 1]
    assert real.attributes == list(schema.attributes)
    assert real.evaluated == list(schema.evaluated) == real.attributes[:35]
    assert np.unique(real.person_ids).tolist() == list(range(1, 8700))
    counts = np.bincount(real.subset_ids).tolist()
    assert dict(zip(SUBSETS, counts, strict=True)) == SUBSET_SIZES
    assert sum(SUBSET_SIZES.values()) == 19000


def test_reader_equals_plain_access_to_the_structure(real, shared_folder):
    struct = loadmat(shared_folder / "data/peta/PETA.mat")["peta"][0, 0]
    np.testing.assert_array_equal(real.labels, struct["data"][:, 4:])
    np.testing.assert_array_equal(real.person_ids, struct["data"][:, 1])
    assert real.attributes == [struct["attribute"][k, 0][0] for k in range(105)]
    for k, partition in enumerate(real.partitions):
        for ours, theirs in {"train": "train", "validation": "val", "test": "test"}.items():
            expected = struct["partion_attribute"][k, 0][theirs][0, 0].astype(int)[:, 0] - 1
            np.testing.assert_array_equal(partition[ours], expected)


@pytest.mark.parametrize("k", range(5))
def test_real_partitions_are_disjoint_and_cover(real, k):
    parts = real.partitions[k]
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [9500, 1900, 7600]
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(19000))


def test_identities_leak_from_training_into_test(real):
    parts = real.partitions[0]
    test = set(real.person_ids[parts["test"]].tolist())
    trained = np.concatenate([parts["train"], parts["validation"]])
    assert len(test) == 4110
    assert len(test & set(real.person_ids[trained].tolist())) == 1106


def test_real_mapping_can_be_derived_from_the_names(real, shared_folder):
    mapping = read_mapping(shared_folder / "data/peta/peta_file_mapping.txt")
    assert len(mapping) == 19000
    assert derive_mapping(real, list(mapping.values())) == mapping
    for number, file in mapping.items():
        subset, _, name = file.split("/")
        assert SUBSETS[real.subset_ids[number - 1]] == subset
        assert int(re.match(r"\d+", name)[0]) == real.local_person_ids[number - 1]


# ---- the real images


@pytest.fixture(scope="module")
def real_folder(shared_folder, tmp_path_factory):
    """CLEAR_PETA, or the shared archive unpacked for these tests."""
    if "CLEAR_PETA" in os.environ:
        return Path(os.environ["CLEAR_PETA"])
    folder = tmp_path_factory.mktemp("peta")
    with zipfile.ZipFile(shared_folder / "data/peta/peta.zip") as archive:
        archive.extractall(folder)
    shutil.copy(shared_folder / "data/peta/PETA.mat", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["published", "renamed"])
def test_all_real_images_are_whole(real, real_folder, shared_folder, tmp_path, layout):
    mapping = read_mapping(shared_folder / "data/peta/peta_file_mapping.txt")
    folder = real_folder
    if layout == "renamed":
        folder = tmp_path / "renamed"
        (folder / "images").mkdir(parents=True)
        shutil.copy(real_folder / "PETA.mat", folder)
        for number, file in mapping.items():
            link = folder / f"images/{number:05d}.png"
            link.symlink_to(real_folder / "PETA dataset" / file)
    begin = time.perf_counter()
    builder = PETA(data_dir=folder, cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    print(f"\n{layout}: built and verified in {time.perf_counter() - begin:.1f} s")
    assert builder.report == VerificationReport("peta/partition0", num_images=19000)
    data = builder.as_dataset().cast_column("image", Image(decode=False))
    assert {split: len(rows) for split, rows in data.items()} == PETA.split_sizes
    categories = {}
    for split in ("trainval", "test"):
        rows = data[split]
        categories.update(zip(rows["image_name"], rows["category_id"], strict=True))
        for name, image in zip(rows["image_name"], rows["image"], strict=True):
            original = os.path.realpath(image["path"])
            assert original.endswith(mapping[int(name[:5])])
    # First appearance by image number: the running maximum grows by one at most.
    by_number = [categories[name] for name in sorted(categories)]
    highest = np.maximum.accumulate(by_number)
    assert highest[0] == 0
    assert set(np.diff(highest)) == {0, 1}
    assert highest[-1] + 1 == 7769


@pytest.mark.slow
def test_no_category_of_the_sal_test_split_is_trained_on(real, real_folder, tmp_path):
    options = {"verify_images": False, "config_name": "sal", "cache_dir": str(tmp_path)}
    builder = PETA(data_dir=real_folder, **options)
    builder.download_and_prepare()
    data = builder.as_dataset()
    categories = {split: set(rows["category_id"]) for split, rows in data.items()}
    assert {split: len(rows) for split, rows in data.items()} == PETA.sal_sizes
    assert {split: len(found) for split, found in categories.items()} == {
        "train": 1701,
        "validation": 189,
        "test": 200,
        "trainval": 1890,
    }
    assert not categories["trainval"] & categories["test"]
    assert not categories["train"] & categories["validation"]
    assert categories["train"] | categories["validation"] == categories["trainval"]


def read_label_file(path):
    """One person a line: its id (CUHK: the file name), then its attributes."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [line.split() for line in lines if line.strip()]
    return {re.match(r"\d+", row[0])[0].lstrip("0"): set(row[1:]) for row in rows}


@pytest.mark.slow
def test_annotation_equals_the_label_files_of_the_sub_sets(real, real_folder):
    """Both are published; they were made apart from each other."""
    column = {name: k for k, name in enumerate(real.attributes)}
    column["footwearSneakers"] = column.pop("footwearSneaker")
    dropped = {"accessoryFaceMask", "accessoryShawl", "lowerBodyLogo"}
    rebuilt = np.zeros_like(real.labels)
    tree = real_folder / "PETA dataset"
    labels = {subset: read_label_file(tree / subset / "archive/Label.txt") for subset in SUBSETS}
    strange = set()
    for row in range(19000):
        person = str(real.local_person_ids[row]).lstrip("0")
        for token in labels[SUBSETS[real.subset_ids[row]]][person]:
            strange |= {token} - column.keys()
            if token in column:
                rebuilt[row, column[token]] = 1
    assert strange == dropped
    np.testing.assert_array_equal(rebuilt, real.labels)
