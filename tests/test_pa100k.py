import os
import re
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from clear_par.datasets_scripts.pa100k import PA100K, read_annotation
from clear_par.datasets_scripts.person_builder import PersonSource
from clear_par.datasets_scripts.person_dataset import load_person_dataset
from clear_par.datasets_scripts.verification import VerificationError, VerificationReport
from clear_par.tests.small_builds import cells, encoded, number_shown
from clear_par.tests.small_builds import deviations_and_nothing_left as deviations

SIZES = {"train": 12, "validation": 3, "test": 5, "trainval": 15}
PARTS = {"train": (1, 13), "val": (13, 16), "test": (16, 21)}  # numbers of the images
ATTRIBUTES = (
    "Female AgeOver60 Age18-60 AgeLess18 Front Side Back Hat Glasses HandBag ShoulderBag Backpack "
    "HoldObjectsInFront ShortSleeve LongSleeve UpperStride UpperLogo UpperPlaid UpperSplice "
    "LowerStripe LowerPattern LongCoat Trousers Shorts Skirt&Dress boots"
).split()
ONE_HOT = ((1, 4), (4, 7), (13, 15))  # columns of age, view, sleeve


pytest_plugins = ["clear_par.tests.small_builds"]
pytestmark = pytest.mark.usefixtures("no_progress_bars")


@pytest.fixture
def builder_class():
    return PA100K


class SmallPA100K:
    """A data set of 20 images in a folder, and what it was made of."""

    def __init__(self, root):
        self.root = root
        rng = np.random.default_rng(0)
        self.attributes = list(ATTRIBUTES)
        self.labels = rng.integers(0, 2, (20, 26), dtype=np.uint8)
        for first, end in ONE_HOT:
            self.labels[:, first:end] = np.eye(end - first)[rng.integers(0, end - first, 20)]
        self.labels[15:18] = self.labels[2:5]  # categories that come back in another split
        self.names = [f"{number:06d}.jpg" for number in range(1, 21)]
        self.write_annotation()
        self.images = root / "data"
        self.images.mkdir()
        for number, name in enumerate(self.names, start=1):
            (self.images / name).write_bytes(encoded(number, "JPEG"))

    def write_annotation(self, **changes):
        content = {"attributes": cells(self.attributes)}
        for part, (first, end) in PARTS.items():
            content[f"{part}_images_name"] = cells(self.names[first - 1 : end - 1])
            content[f"{part}_label"] = self.labels[first - 1 : end - 1]
        savemat(self.root / "annotation.mat", content | changes)


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(PA100K, "split_sizes", SIZES)
    root = tmp_path / "some data"
    root.mkdir()
    return SmallPA100K(root)


# ---- rows


def test_rows_are_those_of_the_annotation(small, build):
    builder = build(small)
    assert builder.report == VerificationReport("pa100k/default", num_images=20)
    data = builder.as_dataset()
    assert {split: len(rows) for split, rows in data.items()} == SIZES
    expected = {"train": range(1, 13), "validation": range(13, 16), "test": range(16, 21)}
    expected["trainval"] = range(1, 16)
    for split, rows in data.items():
        assert rows.features["labels"].length == 26
        for number, row in zip(expected[split], rows, strict=True):
            assert number_shown(row["image"]) == number
            assert row["image_name"] == f"{number:06d}.jpg"
            assert row["labels"] == small.labels[number - 1].tolist()
            assert (row["person_id"], row["camera"]) == (-1, -1)
            assert row["category_id"] == [*range(15), 2, 3, 4, 15, 16][number - 1]


@pytest.mark.parametrize(
    ("annotation", "images"),
    [
        (".", "release_data/release_data"),
        ("PA100k", "PA100k/data"),
        ("PA100k", "PA100k/release_data/release_data"),
        ("annotation", "release_data"),
    ],
)
def test_layouts(small, build, annotation, images):
    root = small.root.parent / "moved"
    shutil.copytree(small.images, root / images)
    (root / annotation).mkdir(exist_ok=True)
    shutil.copy(small.root / "annotation.mat", root / annotation)
    source = PA100K.find_source(str(root))
    assert source.annotations == [root / annotation / "annotation.mat"]
    assert source.images == {name: root / images / name for name in small.names}


def test_load_person_dataset(small, tmp_path):
    where = {"data_dir": small.root, "cache_dir": tmp_path / "cache"}
    rows = load_person_dataset("pa100k", split="trainval[12:]", **where)
    assert rows["image_name"][:] == ["000013.jpg", "000014.jpg", "000015.jpg"]


def test_content_decides_not_the_ending(small, build):
    (small.images / "000007.jpg").write_bytes(encoded(7, "PNG"))
    builder = build(small)
    assert builder.report.is_complete
    assert number_shown(builder.as_dataset("train")[6]["image"]) == 7


# ---- deviations


def test_missing_image_is_named(small, build):
    (small.images / "000007.jpg").unlink()
    report, text = deviations(build, small)
    assert report.missing == {"000007.jpg": "no such file"}
    assert "19 of 20 images can be used" in text
    data = build(small, allow_partial=True).as_dataset()
    assert {split: len(rows) for split, rows in data.items()} == SIZES | {
        "train": 11,
        "trainval": 14,
    }
    assert [number_shown(image) for image in data["train"]["image"]] == [
        *range(1, 7),
        *range(8, 13),
    ]


def test_truncated_image_is_named(small, build):
    path = small.images / "000018.jpg"
    path.write_bytes(path.read_bytes()[:-100])
    report, text = deviations(build, small)
    assert list(report.broken) == ["000018.jpg"]
    assert "truncated" in text


def test_permuted_attributes_are_named(small, build):
    small.attributes[7:9] = reversed(small.attributes[7:9])
    small.write_annotation()
    report, text = deviations(build, small, allow_partial=True)
    assert report.errors == [
        "attribute 7 must be `Hat`, got `Glasses`",
        "attribute 8 must be `Glasses`, got `Hat`",
    ]
    assert "The annotation is not the published one" in text


def test_permuted_label_columns_are_noticed(small, build):
    """The names are right and the columns are not: choices no longer have one value each."""
    small.labels = np.roll(small.labels, 1, axis=1)
    small.write_annotation()
    report, _ = deviations(build, small, allow_partial=True)
    assert len(report.errors) == 3
    assert (
        "every image must have one of AgeOver60, Age18-60, AgeLess18, got none or several in "
        in (report.errors[0])
    )


def test_label_out_of_range(small, build):
    small.labels[3, 7] = 2
    small.labels[19, 7] = 255
    small.write_annotation()
    report, _ = deviations(build, small, allow_partial=True)
    assert report.errors == [
        "labels of `Hat` must be 0 or 1, got [2, 255] in 2 image(s): 000004.jpg, 000020.jpg"
    ]


@pytest.mark.parametrize("view", [[1, 1, 0], [0, 0, 0]])
def test_a_choice_with_no_or_two_values_is_named(small, build, view):
    small.labels[4, 4:7] = view
    small.write_annotation()
    report, _ = deviations(build, small)
    assert report.errors == [
        "every image must have one of Front, Side, Back, got none or several in 1 image(s): "
        "000005.jpg"
    ]


def test_wrong_division_is_noticed(small, build):
    first, second = cells(small.names[:12]), cells(small.names[12:15])
    swapped = {"train_images_name": second, "train_label": small.labels[12:15]}
    swapped |= {"val_images_name": first, "val_label": small.labels[:12]}
    small.write_annotation(**swapped)
    report, _ = deviations(build, small, allow_partial=True)
    assert report.errors == [
        "images must be numbered through train, validation and test, 000001.jpg to 000020.jpg, "
        "got `000013.jpg` for 000001.jpg and 14 more",
        "split `train` must have 12 images, got 3",
        "split `validation` must have 3 images, got 12",
    ]


def test_fewer_attributes_or_images(small, build):
    small.labels, small.attributes = small.labels[:, :-1], small.attributes[:-1]
    small.write_annotation(test_images_name=cells(["000016.jpg"]), test_label=small.labels[15:16])
    report, _ = deviations(build, small)
    assert report.errors == [
        "there must be 26 attributes, got 25",
        "there must be 26 labels per image, got 25",
        "split `test` must have 5 images, got 1",
    ]


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file", bytes(4096)])
def test_unreadable_annotation(small, content):
    (small.root / "annotation.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"must be the official PA100K annotation, got"):
        read_annotation(small.root / "annotation.mat")


def test_annotation_of_another_structure(small):
    small.write_annotation(val_label=small.labels[:4])
    with pytest.raises(ValueError, match="3 names, 4 labels in `val`"):
        read_annotation(small.root / "annotation.mat")
    savemat(small.root / "annotation.mat", {"attributes": cells(ATTRIBUTES)})
    with pytest.raises(ValueError, match=r"got: KeyError\('train_images_name'\)"):
        read_annotation(small.root / "annotation.mat")


@pytest.mark.parametrize("absent", ["folder", "annotation", "images"])
def test_absent_data_says_where_to_get_it(small, build, absent):
    root = small.root
    if absent == "annotation":
        (root / "annotation.mat").unlink()
        found = r"annotation.mat \(not found\) and the images \(20 found\), got .* with data\."
    elif absent == "images":
        shutil.rmtree(small.images)
        found = r"annotation.mat \(found\) and the images \(0 found\), got .* with annotation.mat\."
    else:
        root, found = root / "nowhere", "`data_dir` must be a folder, got '.*nowhere'"
    with pytest.raises(FileNotFoundError, match=found) as caught:
        build(SimpleNamespace(root=root))
    assert "https://github.com/xh-liu/HydraPlus-Net" in str(caught.value)
    assert "release_data/release_data/000001.jpg" in str(caught.value)


# ---- the real annotation


@pytest.fixture(scope="module")
def real(shared_folder):
    return read_annotation(shared_folder / "data/pa100k/annotation.mat")


def test_real_annotation_has_the_published_form(real):
    assert real.attributes == ATTRIBUTES == list(PA100K.schema().attributes)
    assert real.labels.shape == (100_000, 26)
    assert np.unique(real.labels).tolist() == [0, 1]
    assert {split: len(rows) for split, rows in real.splits.items()} == {
        "train": 80_000,
        "validation": 10_000,
        "test": 10_000,
    }
    assert np.concatenate(list(real.splits.values())).tolist() == list(range(100_000))
    assert real.image_names == [f"{number:06d}.jpg" for number in range(1, 100_001)]


def test_reader_equals_plain_access_to_the_file(real, shared_folder):
    struct = loadmat(shared_folder / "data/pa100k/annotation.mat")
    assert real.attributes == [struct["attributes"][k][0][0] for k in range(26)]
    for split, key in {"train": "train", "validation": "val", "test": "test"}.items():
        rows = real.splits[split]
        np.testing.assert_array_equal(real.labels[rows], struct[f"{key}_label"])
        names = struct[f"{key}_images_name"]
        assert [real.image_names[k] for k in rows[:9]] == [names[k][0][0] for k in range(9)]


def test_real_records_pass_all_checks_and_have_the_published_categories(shared_folder, tmp_path):
    source = PersonSource([shared_folder / "data/pa100k/annotation.mat"], images={})
    report = VerificationReport("pa100k")
    records = PA100K(cache_dir=str(tmp_path)).read_records(source, report)
    assert report.errors == []
    assert {split: len(rows) for split, rows in records.splits.items()} == PA100K.split_sizes
    trained, tested = (
        set(records.category_ids[records.splits[split]].tolist()) for split in ("trainval", "test")
    )
    assert (len(trained), len(tested), len(tested - trained)) == (2217, 849, 153)


@pytest.mark.slow
def test_the_whole_data_set_is_built(shared_folder, tmp_path):
    """100,000 files that share two contents: one file may not have as many names."""
    root = tmp_path / "PA100k"
    (root / "release_data/release_data").mkdir(parents=True)
    shutil.copy(shared_folder / "data/pa100k/annotation.mat", root)
    for kind in (0, 1):
        (tmp_path / f"{kind}.jpg").write_bytes(encoded(kind + 1))
    for number in range(1, 100_001):
        link = root / f"release_data/release_data/{number:06d}.jpg"
        os.link(tmp_path / f"{number % 2}.jpg", link)
    begin = time.perf_counter()
    builder = PA100K(data_dir=tmp_path, cache_dir=str(tmp_path / "cache"), verify_images=False)
    builder.download_and_prepare()
    print(f"\nbuilt in {time.perf_counter() - begin:.1f} s")
    assert builder.report == VerificationReport("pa100k/default", num_images=100_000)
    data = builder.as_dataset()
    assert {split: len(rows) for split, rows in data.items()} == PA100K.split_sizes
    trained, tested = (set(data[split]["category_id"]) for split in ("trainval", "test"))
    assert (len(trained), len(tested), len(tested - trained)) == (2217, 849, 153)
    struct = loadmat(shared_folder / "data/pa100k/annotation.mat")
    labels = data["test"].with_format("numpy")["labels"][:]
    np.testing.assert_array_equal(labels, struct["test_label"])
    (tmp_path / "PA100k/release_data/release_data/054321.jpg").unlink()
    with pytest.raises(VerificationError, match=re.escape("054321.jpg: no such file")):
        builder.download_and_prepare()
