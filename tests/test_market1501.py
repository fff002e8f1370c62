import logging
import shutil
from functools import partial

import numpy as np
import pytest
from scipy.io import loadmat

from clear_par.attributes_clear import UNKNOWN, AttributeSchema
from clear_par.datasets_scripts.market1501 import Market1501, validation_persons
from clear_par.datasets_scripts.market1501_annotation import read_annotation, read_names
from clear_par.datasets_scripts.person_dataset import load_person_dataset
from clear_par.datasets_scripts.verification import VerificationReport
from clear_par.tests import small_builds
from clear_par.tests.small_builds import deviations
from clear_par.tests.small_market1501 import (
    EXPECTED,
    FIELDS,
    FILES,
    SIZES,
    SmallMarket,
    published_source,
)

pytest_plugins = ["clear_par.tests.small_builds"]
pytestmark = pytest.mark.usefixtures("no_progress_bars")


@pytest.fixture
def builder_class():
    return Market1501


@pytest.fixture
def sizes(monkeypatch):
    for name, value in EXPECTED.items():
        monkeypatch.setattr(Market1501, name, value)


@pytest.fixture
def small(tmp_path, sizes):
    root = tmp_path / "some data"
    root.mkdir()
    return SmallMarket(root)


records = partial(small_builds.records, Market1501)
errors_of = partial(small_builds.errors_of, Market1501)


# ---- rows


def test_rows_are_those_of_folders_and_annotation(small, build):
    builder = build(small)
    data = builder.as_dataset()
    assert builder.report == VerificationReport("market1501/default", num_images=38)
    assert {split: len(rows) for split, rows in data.items()} == SIZES
    for split, rows in data.items():
        part = "train" if split in ("train", "validation", "trainval") else "test"
        for row in rows.select_columns([c for c in rows.column_names if c != "image"]):
            folder, _, file = row["image_name"].partition("/")
            assert (folder == "bounding_box_train") == (part == "train")
            assert row["person_id"] == int(file[:4])
            assert (row["camera"], row["sequence"]) == (int(file[6]), int(file[8]))
            assert row["labels"] == small.labels(part, row["person_id"])
    names = {split: set(rows["image_name"]) for split, rows in data.items()}
    assert {row[19:23] for row in names["validation"]} == {"0009", "0017"}
    assert names["train"] | names["validation"] == names["trainval"]
    assert names["query"] | names["bounding_box_test"] == names["test"]
    assert data["test"][0]["image"].size == (8, 16)


def test_junk_and_distractors_end_the_gallery_without_labels(small, build):
    where = {"data_dir": small.root, "cache_dir": small.root.parent / "cache"}
    gallery = load_person_dataset("market1501", split="test", junk=True, distractors=True, **where)
    plain = load_person_dataset("market1501", split="test", **where)
    assert gallery[:6]["labels"] == plain["labels"][:]
    assert gallery["person_id"][6:] == [-1, 0, 0]
    assert gallery["image_name"][6] == "bounding_box_test/-1_c1s1_000401_03.jpg"
    assert gallery["camera"][6:] == [1, 2, 2]
    assert set(np.ravel(gallery["labels"][6:])) == {-100}
    only = load_person_dataset("market1501", split="test", distractors=True, **where)
    assert only["person_id"][6:] == [0, 0]


def test_fields_are_read_by_name(small):
    before = records(small)[0].labels
    small.write_annotation(FIELDS[::-1])
    np.testing.assert_array_equal(records(small)[0].labels, before)
    small.write_annotation(tuple(np.random.default_rng(3).permutation(FIELDS)))
    np.testing.assert_array_equal(records(small)[0].labels, before)


@pytest.mark.parametrize("place", [".", "market1501", "Market1501/Market-1501-v15.09.15"])
def test_images_are_found_in_the_usual_places(small, place):
    target = small.root / "moved" / place
    shutil.copytree(small.root / "Market-1501-v15.09.15", target)
    shutil.copy(small.root / "market_attribute.mat", small.root / "moved")
    (target / "query/Thumbs.db").write_bytes(b"")
    small.root = small.root / "moved"
    found, report = records(small)
    assert report.is_complete
    assert len(found.image_names) == 38


def test_every_eighth_person_is_held_out_in_any_order():
    ids = np.random.default_rng(0).permutation(np.arange(100, 124))
    assert validation_persons(ids).tolist() == [107, 115, 123]


# ---- verification


def test_missing_image_is_counted(small, build, caplog):
    small.path(FILES[0]).unlink()
    small.path(FILES[15]).unlink()
    report, text = deviations(build, small)
    folder = "found in bounding_box_train; which are missing is not known"
    # FILES[15] shows person 9, who is held out.
    assert report.missing == {
        "train: image 28 of 28": f"27 {folder}",
        "validation: image 4 of 4": f"3 {folder}",
    }
    assert report.errors == []
    assert "36 of 38 images" in text
    with caplog.at_level(logging.WARNING):
        data = build(small, allow_partial=True).as_dataset()
    assert "2 missing images" in caplog.text
    sizes = {split: len(rows) for split, rows in data.items()}
    assert sizes == SIZES | {"train": 27, "validation": 3, "trainval": 30}
    assert all("/" in name for name in data["trainval"]["image_name"])


def test_truncated_image_is_named_and_nothing_is_left(small, build):
    path = small.path(FILES[-4])
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-100])
    report, text = deviations(build, small)
    assert list(report.broken) == [FILES[-4]]
    assert str(path) in text
    cache = small.root.parent / "cache"
    left = [p for p in cache.rglob("*") if p.is_file()]
    assert all(p.suffix == ".lock" for p in left)
    assert len(build(small, allow_partial=True).as_dataset("test")) == 5


def test_an_image_too_many_is_a_wrong_count(small, build):
    shutil.copy(small.path(FILES[0]), small.path("query/0001_c5s1_000900_00.jpg"))
    report, _ = deviations(build, small, allow_partial=True)
    assert report.errors == [
        "split `query` must have 3 images, got 4",
        "split `test` must have 6 images, got 7",
    ]


def test_person_without_attributes(small):
    small.path(FILES[-6]).rename(small.path("bounding_box_test/0017_c1s1_000001_01.jpg"))
    # Person 17 belongs to the training part.
    assert errors_of(small) == ["person 0017 has no attributes in `test`"]


def test_wrong_codes_are_named(small):
    small.codes["test"]["hat"][1] = 3
    small.codes["train"]["age"][:2] = 0, 5
    small.write_annotation()
    assert errors_of(small) == [
        "`age` of `train` must be 1 to 4, got [0, 5] for 2 person(s): 0002, 0003",
        "`hat` of `test` must be 1 to 2, got [3] for 1 person(s): 0020",
    ]


def test_persons_are_counted_and_come_once(small):
    small.ids["train"][3] = 2
    small.write_annotation()
    errors = errors_of(small)
    assert "person 0002 comes twice in `train`" in errors
    assert "person 0005 has no attributes in `train`" in errors
    for part in small.codes["test"]:
        small.codes["test"][part] = small.codes["test"][part][:2]
    small.ids["test"].pop()
    small.write_annotation()
    assert "`test` must have 3 persons, got 2" in errors_of(small)


def test_other_fields_or_files_are_refused(small):
    path = small.root / "market_attribute.mat"
    del small.codes["train"]["hat"]
    del small.codes["test"]["hat"]
    small.write_annotation([name for name in FIELDS if name != "hat"])
    with pytest.raises(ValueError, match=r"market_attribute.mat` must have.*\['hat'\]"):
        errors_of(small)
    for content in (b"", b"not a MATLAB file", bytes(4096)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="must be the official Market-1501 annotation, got"):
            errors_of(small)


@pytest.mark.parametrize("absent", ["annotation", "images"])
def test_absent_data_says_where_to_get_it(small, build, absent):
    if absent == "annotation":
        (small.root / "market_attribute.mat").unlink()
        found = r"\(not found\) and the images \(41 found\)"
    else:
        shutil.rmtree(small.root / "Market-1501-v15.09.15")
        found = r"\(found\) and the images \(0 found\).*market_attribute.mat, one.jpg"
    with pytest.raises(FileNotFoundError, match=found) as caught:
        build(small)
    assert "https://github.com/vana77/Market-1501_Attribute" in str(caught.value)
    assert "bounding_box_train" in str(caught.value)


def test_names_tell_person_camera_and_sequence():
    names = ["query/0001_c3s2_000001_00.jpg", "a/-1_c6s1_000001_10.jpg", "train: image 3 of 9"]
    assert read_names(names).tolist() == [[1, 3, 2], [-1, 6, 1], [-1, -1, -1]]
    assert read_names([]).shape == (0, 3)


# ---- the schema


@pytest.fixture(scope="module")
def schema(repository):
    return AttributeSchema.from_json(repository / "datasets_scripts/schemas/market1501.json")


SENTENCES = [
    (
        [*("adult", "gender", "hair", "up", "upred", "clothes", "down", "downblack", "backpack")],
        "An adult woman with long hair, wearing a short-sleeved red top and short black trousers, "
        "carrying a backpack.",
    ),
    (
        ["old", "downgray", "hat"],
        "An elderly man with short hair, wearing a long-sleeved top of another colour, a long grey "
        "skirt or dress and a hat.",
    ),
    (
        ["teenager", "upblue", "clothes", "downbrown", "handbag"],
        "A male teenager with short hair, wearing a long-sleeved blue top and long brown trousers, "
        "carrying a handbag.",
    ),
]


@pytest.mark.parametrize(("present", "expected"), SENTENCES)
def test_whole_rows_are_said(schema, present, expected):
    row = [int(name in present) for name in schema.attributes]
    assert sum(row) == len(present)
    assert schema.describe(row) == expected


def test_every_attribute_is_said_and_read_back(schema):
    for name in schema.attributes:
        only = [1 if other == name else UNKNOWN for other in schema.attributes]
        parsed = schema.parse(schema.describe(only))
        assert parsed.not_understood == ()
        assert schema.query_values(parsed.query)[schema.index(name)] == 1
        assert schema.query_values(schema.words(only).split(", "))[schema.index(name)] == 1


def test_free_text_is_understood(schema):
    parsed = schema.parse("a lady in a navy jacket and white shorts, cap, with a shoulder bag")
    assert parsed.not_understood == ()
    assert parsed.query == {
        "gender": "female",
        "upper colour": "blue",
        "lower colour": "white",
        "lower length": "short",
        "lower type": "trousers",
        "hat": True,
        "bag type": "bag",
    }
    none = schema.query_values({"bag type": "none"})
    assert [none[schema.index(n)] for n in ("backpack", "bag", "handbag")] == [0, 0, 0]
    listed = schema.parse("a man with no bag, hat or backpack")
    assert listed.query == {"gender": "male", "bag": False, "hat": False, "backpack": False}
    # Neither short nor trousers alone is denied: long trousers and short skirts are left.
    denied = schema.parse("a woman, no shorts")
    assert denied.query == {"gender": "female"}
    assert denied.not_understood == ("no shorts",)


def test_the_file_is_as_it_would_be_written(schema, repository, tmp_path):
    schema.to_json(tmp_path / "schema.json")
    stored = repository / "datasets_scripts/schemas/market1501.json"
    assert (tmp_path / "schema.json").read_text() == stored.read_text()


# ---- the real annotation and the real names


@pytest.fixture(scope="module")
def real_source(shared_folder):
    return published_source(shared_folder / "data/market1501")


def real_records(source, tmp_path, **options):
    report = VerificationReport("market1501")
    builder = Market1501(cache_dir=str(tmp_path), **options)
    return builder, builder.read_records(source, report), report


def test_real_counts_are_the_published_ones(real_source, tmp_path):
    builder, found, report = real_records(real_source, tmp_path, junk=True, distractors=True)
    sizes = {split: len(rows) for split, rows in found.splits.items()}
    assert report.is_complete
    assert sizes == builder.published_sizes()
    assert sizes["test"] == 13115 + 3368 + 3819 + 2798
    persons = {s: np.unique(found.person_ids[rows]) for s, rows in found.splits.items()}
    assert {s: len(persons[s]) for s in ("trainval", "train", "validation", "query")} == {
        **{"trainval": 751, "train": 658, "validation": 93, "query": 750}
    }
    assert not set(persons["train"]) & set(persons["validation"])
    assert persons["test"].tolist() == [-1, 0, *persons["query"]]
    assert np.unique(found.cameras).tolist() == [1, 2, 3, 4, 5, 6]
    _, found, report = real_records(real_source, tmp_path)
    assert report.is_complete
    assert {s: len(rows) for s, rows in found.splits.items()} == Market1501.split_sizes
    assert np.unique(found.labels).tolist() == [0, 1]


def test_real_labels_equal_plain_access_to_the_structure(shared_folder):
    path = shared_folder / "data/market1501/market_attribute.mat"
    attributes = Market1501.schema().attributes
    ours = read_annotation(path, attributes)
    struct = loadmat(path)["market_attribute"][0, 0]
    orders = {}
    for part in ("train", "test"):
        theirs = struct[part][0, 0]
        orders[part] = theirs.dtype.names
        ids = [int(theirs["image_index"][0, k][0]) for k in range(theirs["age"].shape[1])]
        assert ours[part].person_ids.tolist() == ids
        for name, column in zip(attributes, ours[part].labels.T, strict=True):
            age = {"young": 1, "teenager": 2, "adult": 3, "old": 4}.get(name)
            field, code = ("age", age) if age else (name, 2)
            np.testing.assert_array_equal(column, theirs[field][0] == code)
        # What the schema calls exclusive is so in the file.
        for group in Market1501.schema().groups:
            columns = [attributes.index(a) for a in group.options.values()]
            assert ours[part].labels[:, columns].sum(axis=1).max() <= 1
    assert orders["train"] != orders["test"]


def test_real_vectors_are_read_back_from_their_sentences(real_source, tmp_path):
    _, found, _ = real_records(real_source, tmp_path)
    schema = Market1501.schema()
    vectors = np.unique(found.labels, axis=0)
    assert len(vectors) > 800
    for row in vectors[::9]:
        parsed = schema.parse(schema.describe(row))
        assert parsed.not_understood == ()
        said = np.array(schema.query_values(parsed.query))
        for name in ("hat", "backpack", "bag", "handbag"):  # what is not there is not said
            said[schema.index(name)] = max(said[schema.index(name)], 0)
        np.testing.assert_array_equal(said, row)
