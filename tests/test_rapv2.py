import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from clear_par.datasets_scripts.person_dataset import load_person_dataset
from clear_par.datasets_scripts.rapv2 import RAPv2, read_annotation
from clear_par.datasets_scripts.verification import VerificationReport
from clear_par.tests.small_builds import cells, encoded, number_shown
from clear_par.tests.small_builds import deviations_and_nothing_left as deviations

SIZES = {"train": 12, "validation": 4, "test": 4, "trainval": 16}
# Columns of the 54 selected attributes among the 152, counted from 1.
SELECTED = [
    *(*range(1, 6), *range(8, 11), *range(12, 19), *range(22, 32), 46, 48, 49, *range(51, 54)),
    *(*range(68, 72), 73, 74, *range(89, 92), *range(93, 97), 98, 99, 101, 102, *range(106, 112)),
]
VIEWPOINT = 111  # counted from 0


pytest_plugins = ["clear_par.tests.small_builds"]
pytestmark = pytest.mark.usefixtures("no_progress_bars")


@pytest.fixture
def builder_class():
    return RAPv2


def all_names():
    """The 152 names, with plain ones where no test looks."""
    names = [f"column-{k}" for k in range(1, 153)]
    for column, name in zip(SELECTED, RAPv2.schema().attributes, strict=True):
        names[column - 1] = name
    names[VIEWPOINT] = "viewpoint"
    return names


class SmallRAPv2:
    """A data set of 20 images in a folder, in the structure of the published file."""

    def __init__(self, root, names=None):
        self.root = root
        rng = np.random.default_rng(0)
        self.attributes = names or all_names()
        self.data = rng.integers(0, 2, (20, 152))
        self.data[:, VIEWPOINT] = rng.integers(1, 5, 20)
        self.data[:, 120:] = rng.integers(0, 300, (20, 32))  # boxes
        self.data[15:18] = self.data[2:5]
        self.data[3, [0, 15]] = 2  # uncertain
        self.names = [
            f"CAM{k % 3 + 6:02d}-2014-02-15-20140215164104-20140215164920-tarid{k}-frame9-line1.png"
            for k in range(20)
        ]
        self.person_ids = np.array([1, 1, -2, -1, *range(2, 18)])
        self.selected = list(SELECTED)
        self.partitions = []
        for _ in range(5):
            numbers = rng.permutation(20) + 1
            parts = {"train": numbers[:12], "val": numbers[12:16], "test": numbers[16:]}
            self.partitions.append(parts)
        self.write_annotation()
        self.images = root / "RAP_dataset"
        self.images.mkdir()
        for k, name in enumerate(self.names):
            (self.images / name).write_bytes(encoded(k, "PNG"))

    @property
    def file(self):
        return self.root / "RAP_annotation/RAP_annotation.mat"

    def write_annotation(self, without=()):
        partitions = np.empty((1, len(self.partitions)), dtype=object)
        for k, parts in enumerate(self.partitions):
            rows = {f"{part}_index": np.atleast_2d(numbers) for part, numbers in parts.items()}
            partitions[0, k] = {name: row.astype(np.uint32) for name, row in rows.items()}
        identities = {
            f"{part}_identity": np.arange(9, dtype=np.uint16) for part in ("train", "test")
        }
        struct = {
            "name": cells(self.names),
            "data": self.data.astype(np.int32),
            "attribute": cells(self.attributes),
            "selected_attribute": np.atleast_2d(self.selected).astype(np.uint8),
            "partition_attribute": partitions,
            "person_identity": self.person_ids.astype(np.int16).reshape(-1, 1),
            "partition_reid": identities,
        }
        self.file.parent.mkdir(exist_ok=True)
        kept = {name: value for name, value in struct.items() if name not in without}
        savemat(self.file, {"RAP_annotation": kept})

    def labels(self, uncertain=0):
        labels = self.data[:, np.array(SELECTED) - 1]
        return np.where(labels == 2, uncertain, labels).tolist()


@pytest.fixture
def small(tmp_path, monkeypatch):
    monkeypatch.setattr(RAPv2, "split_sizes", SIZES)
    root = tmp_path / "some data"
    root.mkdir()
    return SmallRAPv2(root)


# ---- rows


def test_rows_are_those_of_the_annotation(small, build):
    builder = build(small)
    assert builder.report == VerificationReport("rapv2/partition0", num_images=20)
    data = builder.as_dataset()
    assert {split: len(rows) for split, rows in data.items()} == SIZES
    parts = small.partitions[0]
    expected = {"train": parts["train"], "validation": parts["val"], "test": parts["test"]}
    expected["trainval"] = [*parts["train"], *parts["val"]]
    labels = small.labels()
    first = {}  # vector -> number, by first appearance
    categories = [first.setdefault(tuple(row), len(first)) for row in labels]
    assert (categories[15], categories[17], max(categories)) == (2, 4, 17)
    for split, rows in data.items():
        for number, row in zip(expected[split], rows, strict=True):
            k = number - 1
            assert number_shown(row["image"]) == k
            assert row["image_name"] == small.names[k]
            assert row["labels"] == labels[k]
            assert row["person_id"] == max(small.person_ids[k], -1)
            assert row["camera"] == k % 3 + 6
            assert row["viewpoint"] == small.data[k, VIEWPOINT]
            assert row["category_id"] == categories[k]


def test_every_partition_is_its_own_configuration(small, build):
    for k in range(5):
        rows = build(small, config_name=f"partition{k}").as_dataset(split="validation")
        expected = [small.names[number - 1] for number in small.partitions[k]["val"]]
        assert rows["image_name"][:] == expected
    with pytest.raises(ValueError, match="partition5"):
        build(small, config_name="partition5")


def test_uncertain_labels_are_absent_or_unknown(small, build):
    """One after the other in one cache: neither brings the rows of the other."""
    for uncertain, label in (("absent", 0), ("unknown", -100), ("absent", 0)):
        data = build(small, config_name="partition1", uncertain=uncertain).as_dataset()
        rows = {row["image_name"]: row for split in data.values() for row in split}
        assert [rows[name]["labels"] for name in small.names] == small.labels(label)
        assert rows[small.names[3]]["labels"].count(-100) == (2 if uncertain == "unknown" else 0)
        # Row 16 has the same labels, without doubt.
        assert rows[small.names[3]]["category_id"] != rows[small.names[16]]["category_id"]


def test_other_uncertain_is_refused(small, build):
    with pytest.raises(
        ValueError, match=r"`uncertain` must be one of \['absent', 'unknown'\], got 2"
    ):
        build(small, uncertain=2)


@pytest.mark.parametrize("place", ["RAP2", "RAPv2", "RAP"])
def test_layouts(small, place):
    root = small.root.parent / "moved"
    shutil.copytree(small.root, root / place)
    source = RAPv2.find_source(str(root))
    assert source.annotations == [root / place / "RAP_annotation/RAP_annotation.mat"]
    assert source.images == {name: root / place / "RAP_dataset" / name for name in small.names}
    # The annotation without its folder.
    shutil.move(source.annotations[0], root)
    shutil.rmtree(root / place / "RAP_annotation")
    assert RAPv2.find_source(str(root)).annotations == [root / "RAP_annotation.mat"]


def test_load_person_dataset(small, tmp_path):
    where = {"data_dir": small.root, "cache_dir": tmp_path / "cache", "config_name": "partition3"}
    rows = load_person_dataset("rapv2", split="test", uncertain="unknown", **where)
    expected = [small.names[number - 1] for number in small.partitions[3]["test"]]
    assert rows["image_name"][:] == expected


def test_content_decides_not_the_ending(small, build):
    (small.images / small.names[7]).write_bytes(encoded(7, "JPEG"))
    rows = build(small).as_dataset("trainval+test")
    shown = {row["image_name"]: number_shown(row["image"]) for row in rows}
    assert [shown[name] for name in small.names] == list(range(20))


def test_an_image_without_a_camera_in_its_name(small, build):
    name = "somewhere.png"
    (small.images / small.names[5]).rename(small.images / name)
    small.names[5] = name
    small.write_annotation()
    rows = build(small).as_dataset("trainval+test")
    assert {row["camera"] for row in rows if row["image_name"] == name} == {-1}


# ---- deviations


def test_missing_image_is_named(small, build):
    (small.images / small.names[7]).unlink()
    report, text = deviations(build, small)
    assert report.missing == {small.names[7]: "no such file"}
    assert "19 of 20 images can be used" in text
    rows = build(small, allow_partial=True).as_dataset("trainval+test")
    assert sorted(rows["image_name"]) == sorted({*small.names} - {small.names[7]})


def test_truncated_image_is_named(small, build):
    path = small.images / small.names[7]
    path.write_bytes(path.read_bytes()[:-300])
    report, text = deviations(build, small)
    assert list(report.broken) == [small.names[7]]
    assert "truncated" in text


def test_permuted_attributes_are_named(small, build):
    small.selected[13:15] = reversed(small.selected[13:15])
    small.write_annotation()
    report, text = deviations(build, small, allow_partial=True)
    assert report.errors == [
        "attribute 13 must be `hs-Hat`, got `hs-Glasses`",
        "attribute 14 must be `hs-Glasses`, got `hs-Hat`",
    ]
    assert "The annotation is not the published one" in text


def test_other_number_of_selected_attributes(small, build):
    small.selected = small.selected[:-1]
    small.write_annotation()
    report, _ = deviations(build, small)
    assert "there must be 54 attributes, got 53" in report.errors


@pytest.mark.parametrize("uncertain", ["absent", "unknown"])
def test_label_out_of_range(small, build, uncertain):
    hat, other = SELECTED[13] - 1, 18  # another column, which is not selected
    small.data[[3, 9], hat] = [3, -100]
    small.data[4, other] = 7
    small.write_annotation()
    report, _ = deviations(build, small, allow_partial=True, uncertain=uncertain)
    assert report.errors == [
        "labels of `hs-Hat` must be 0, 1 or 2, got [-100, 3] in 2 image(s): "
        f"{small.names[3]}, {small.names[9]}"
    ]


def test_viewpoint_out_of_range(small, build):
    small.data[4, VIEWPOINT] = 0
    small.write_annotation()
    report, _ = deviations(build, small)
    assert report.errors == [
        f"labels of `viewpoint` must be 1, 2, 3 or 4, got [0] in 1 image(s): {small.names[4]}"
    ]


def test_a_wrong_partition_spoils_its_configuration_alone(small, build):
    parts = small.partitions[2]
    lost, doubled = parts["train"][0], parts["test"][0]
    parts["train"][0] = doubled
    small.write_annotation()
    report, _ = deviations(build, small, config_name="partition2")
    assert report.errors == [
        f"every image must be in one split, in no split: 1 image(s): {small.names[lost - 1]}",
        "every image must be in one split, in several splits: 1 image(s): "
        f"{small.names[doubled - 1]}",
    ]
    assert build(small, config_name="partition1").report.is_complete


def test_partition_sizes_and_numbers_are_checked(small, build):
    parts = small.partitions[0]
    parts["train"], parts["val"] = parts["train"][:-1], np.append(parts["val"], parts["train"][-1])
    parts["test"][0] = 21
    small.write_annotation()
    report, _ = deviations(build, small)
    assert set(report.errors) >= {
        "split `train` must have 12 images, got 11",
        "split `validation` must have 4 images, got 5",
        "split `test` must point at images 1 to 20, got [21]",
    }


def test_an_image_name_twice_is_noticed(small, build):
    small.names[4] = small.names[5]
    small.write_annotation()
    report, _ = deviations(build, small, allow_partial=True)
    assert report.errors == ["image names must differ, got 1 more than once"]


@pytest.mark.parametrize("content", [b"", b"not a MATLAB file", bytes(4096)])
def test_unreadable_annotation(small, content):
    small.file.write_bytes(content)
    with pytest.raises(ValueError, match=r"must be the official RAPv2 annotation, got"):
        read_annotation(small.file)


def test_annotation_of_another_structure(small):
    small.write_annotation(without=["person_identity"])
    with pytest.raises(ValueError, match="official RAPv2 annotation, got: KeyError"):
        read_annotation(small.file)
    small.partitions.pop()
    small.write_annotation()
    with pytest.raises(
        ValueError, match=r"20 images, one column .* 152 attributes .* 5 part.*, 4\)"
    ):
        read_annotation(small.file)
    small.partitions.append(small.partitions[0])
    small.person_ids = small.person_ids[:-1]
    small.write_annotation()
    with pytest.raises(ValueError, match=r"one identity, .*got \(\(20, 152\), \(19,\), 5\)"):
        read_annotation(small.file)
    small.selected[0] = 0
    small.write_annotation()
    with pytest.raises(ValueError, match="selected attributes must count from 1"):
        read_annotation(small.file)


@pytest.mark.parametrize("absent", ["folder", "annotation", "images"])
def test_absent_data_says_where_to_get_it(small, build, absent):
    root = small.root
    if absent == "annotation":
        small.file.unlink()
        found = r"RAP_annotation.mat \(not found\) and the images \(20 found\), got .* with RAP_ann"
    elif absent == "images":
        shutil.rmtree(small.images)
        found = r"RAP_annotation.mat \(found\) and the images \(0 found\)"
    else:
        root, found = root / "nowhere", "`data_dir` must be a folder, got '.*nowhere'"
    with pytest.raises(FileNotFoundError, match=found) as caught:
        build(SimpleNamespace(root=root))
    assert "licence agreement" in str(caught.value)
    assert "RAP_dataset/<name>.png" in str(caught.value)


# ---- the real names


def test_real_names_and_selection(shared_folder, tmp_path):
    """The structure as public loaders go through it, with the published names and selection."""
    folder = shared_folder / "data/rapv2"
    names = (folder / "rap_annotation_attribute-english.txt").read_text().split()
    selection = (folder / "selected_attribute_idx.txt").read_text().split()
    assert [int(column) for column in selection] == SELECTED
    small = SmallRAPv2(tmp_path, names)
    annotation = read_annotation(small.file)
    struct = loadmat(small.file)["RAP_annotation"]
    selected = struct["selected_attribute"][0][0][0].astype(int) - 1
    attributes = [struct["attribute"][0][0][i][0][0] for i in range(152)]
    assert annotation.attributes == [attributes[i] for i in selected]
    assert annotation.attributes == list(RAPv2.schema().attributes)
    np.testing.assert_array_equal(annotation.labels, struct["data"][0][0][:, selected])
    np.testing.assert_array_equal(annotation.viewpoints, struct["data"][0][0][:, 111])
    assert annotation.image_names == [struct["name"][0][0][i][0][0] for i in range(20)]
    for k, partition in enumerate(annotation.partitions):
        for split, key in {"train": "train", "validation": "val", "test": "test"}.items():
            public = struct["partition_attribute"][0][0][0][k][f"{key}_index"][0][0][0]
            np.testing.assert_array_equal(partition[split], public.astype(int) - 1)
