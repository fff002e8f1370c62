import csv
import os
import shutil
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image as PillowImage

from clear_par.attributes_clear import UNKNOWN, AttributeSchema
from clear_par.datasets_scripts.person_builder import PersonSource
from clear_par.datasets_scripts.person_dataset import load_person_dataset
from clear_par.datasets_scripts.peta_annotation import read_mapping
from clear_par.datasets_scripts.upar2024 import UPAR2024
from clear_par.datasets_scripts.upar2024_annotation import read_table
from clear_par.datasets_scripts.verification import VerificationReport
from clear_par.tests import small_builds
from clear_par.tests.small_builds import deviations

PA100K = "PA100k/release_data/release_data"
TRAIN = [
    *(f"Market1501/bounding_box_train/{p:04d}_c{p}s1_00010{p}_01.jpg" for p in (2, 5, 6)),
    *(f"{PA100K}/{number:06d}.jpg" for number in range(1, 6)),
    *(f"PETA/images/{number:05d}.png" for number in (5, 18, 19)),
]
VALIDATION = [
    "Market1501/query/0001_c1s1_001051_00.jpg",
    "Market1501/bounding_box_test/0003_c4s5_000300_01.jpg",
    *(f"{PA100K}/{number:06d}.jpg" for number in (90001, 99999, 100000)),
    "PETA/images/00001.png",
]
MEVID = ["MEVID/images/0104O003C330T001F00000.jpg", "PETA/images/00005.png"]
NAMES = UPAR2024.schema().attributes


pytest_plugins = ["clear_par.tests.small_builds"]
pytestmark = pytest.mark.usefixtures("no_progress_bars")


@pytest.fixture
def builder_class():
    return UPAR2024


class SmallUPAR:
    """A data set of 17 images in a folder, and what it was made of."""

    def __init__(self, root):
        self.root = root
        rng = np.random.default_rng(0)
        self.labels = {name: rng.integers(0, 2, 40) for name in (*TRAIN, *VALIDATION, *MEVID)}
        # Each header as its official file has it.
        self.write("phase1/train/train.csv", TRAIN, ["# " + NAMES[0], *NAMES[1:]])
        self.write("annotations/val_gt/val_gt.csv", VALIDATION, ["# image", *NAMES])
        pixels = rng.integers(0, 255, (16, 8, 3), dtype=np.uint8)
        self.picture = root / "one.bmp"  # Linked under names that say PNG and JPEG.
        PillowImage.fromarray(pixels).save(self.picture)
        for name in (*TRAIN, *VALIDATION):
            self.link(name)

    def write(self, file, names, header=(), with_labels=True, order=NAMES):
        columns = [NAMES.index(name) for name in order]
        rows = [[name, *(self.labels[name][columns] if with_labels else ())] for name in names]
        path = self.root / "data" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([*([header] if header else []), *rows])
        return path

    def link(self, name):
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(self.picture, path)

    def path(self, name):
        return self.root / "data" / name


@pytest.fixture
def sizes(monkeypatch):
    monkeypatch.setattr(UPAR2024, "split_sizes", {"train": 11, "validation": 6})
    monkeypatch.setattr(UPAR2024, "validation_sources", {"market1501": 2, "pa100k": 3, "peta": 1})


@pytest.fixture
def small(tmp_path, sizes):
    root = tmp_path / "some data"
    (root / "data").mkdir(parents=True)
    return SmallUPAR(root)


records = partial(small_builds.records, UPAR2024)
errors_of = partial(small_builds.errors_of, UPAR2024)


# ---- rows


def test_rows_are_those_of_the_tables(small, build):
    builder = build(small)
    assert builder.report == VerificationReport("upar2024/default", num_images=17)
    data = builder.as_dataset()
    assert {split: rows["image_name"][:] for split, rows in data.items()} == {
        "train": TRAIN,
        "validation": VALIDATION,
    }
    sources = builder.info.features["source"]
    for rows in data.values():
        for row in rows:
            name = row["image_name"]
            assert row["labels"] == small.labels[name].tolist()
            assert sources.int2str(row["source"]) == name.split("/")[0].lower()
            market = name.startswith("Market")
            file = name.split("/")[-1]
            assert row["person_id"] == (int(file[:4]) if market else -1)
            assert row["camera"] == (int(file[6]) if market else -1)
            assert row["image"].size == (8, 16)


def test_trainval_is_both_parts(small):
    where = {"data_dir": small.root, "cache_dir": small.root.parent / "cache"}
    rows = load_person_dataset("upar2024", split="trainval", verify_images=False, **where)
    assert rows["image_name"][:] == TRAIN + VALIDATION


@pytest.mark.parametrize("source", ["Market1501", "PA100k", "PETA"])
def test_sources_can_be_held_out_or_trained_on_alone(small, source):
    def of(names, is_source):
        return [name for name in names if name.startswith(source) == is_source]

    for kind, is_trained in (("without", False), ("only", True)):
        found, report = records(small, config_name=f"{kind}_{source.lower()}")
        names = np.array(found.image_names)
        assert report.errors == []
        assert names[found.splits["train"]].tolist() == of(TRAIN, is_trained)
        assert names[found.splits["validation"]].tolist() == of(VALIDATION, not is_trained)


def test_a_configuration_is_built_with_its_own_sizes(small, build):
    data = build(small, config_name="without_peta", verify_images=False).as_dataset()
    assert {split: len(rows) for split, rows in data.items()} == {"train": 8, "validation": 1}


def test_test_images_of_a_further_source_are_taken(small, build):
    small.write("phase2/test_gt.csv", MEVID[:1], ["# image", *NAMES])
    small.link(MEVID[0])
    builder = build(small)
    test = builder.as_dataset("test")
    assert test["labels"][:] == [small.labels[MEVID[0]].tolist()]
    assert test.features["source"].int2str(test["source"][0]) == "mevid"
    small.path(MEVID[0]).unlink()
    report, _ = deviations(build, small)
    assert report.missing == {MEVID[0]: "no such file"}


def test_images_without_labels_are_unknown(small):
    shutil.rmtree(small.root / "data/annotations")
    small.write("phase1/val_task1/val.csv", VALIDATION, with_labels=False)
    found, report = records(small)
    assert report.errors == []
    rows = found.splits["validation"]
    assert [found.image_names[row] for row in rows] == VALIDATION
    assert np.unique(found.labels[rows]).tolist() == [UNKNOWN]
    assert found.labels.shape == (17, 40)
    # The ground truth counts for more, wherever it lies.
    small.write("val_gt.csv", VALIDATION, ["# image", *NAMES])
    found, _ = records(small)
    assert np.unique(found.labels).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        ("Market1501", "Market1501/Market-1501-v15.09.15"),
        ("Market1501", "../Market-1501-v15.09.15"),
        (PA100K, "PA100K/data"),
        (PA100K, "../PA100k/release_data/release_data"),
        ("PETA/images", "../PETA/images"),
    ],
)
def test_trees_are_found_in_several_places(small, tmp_path, tree, place):
    shutil.move(small.path(tree), tmp_path / "moved")
    target = small.path(place)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(tmp_path / "moved", target)
    found, report = records(small)
    assert report.is_complete
    assert None not in found.image_paths


# ---- tables


@pytest.mark.parametrize(
    "header",
    [
        [f"# {NAMES[0]}", *NAMES[1:]],
        ["", f"# {NAMES[0]}", *NAMES[1:]],
        ["# image", *NAMES],
        ["image", *NAMES],
    ],
)
def test_every_form_of_the_header_is_read(small, header):
    table = read_table(small.write("t.csv", TRAIN, header), 40)
    assert table.attributes == list(NAMES)
    assert table.image_names == TRAIN
    np.testing.assert_array_equal(table.labels, [small.labels[name] for name in TRAIN])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a/b.jpg,0,1\na/c.jpg,0\n", "must have 3 cells in every row, got 2 in line 2"),
        ("image,x,y\na/b.jpg,0,1\na/c.jpg,0.5,1\n", "must .* got '0.5' in line 3"),
        ("image,x,y\na/b.jpg,,1\n", "must have whole numbers as labels, got '' in line 2"),
        ("image,x,y\na/b.jpg,nan,1\n", "must have whole numbers as labels, got 'nan' in line 2"),
        ("image,x,y\n", "must list images, got none"),
        ("", "must list images, got none"),
    ],
)
def test_damaged_tables_are_named(tmp_path, lines, message):
    path = tmp_path / "train.csv"
    path.write_text(lines)
    with pytest.raises(ValueError, match=f"train.csv` {message}"):
        read_table(path, 2)


def test_numbers_may_be_written_as_fractions(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("a/b.jpg,1.0,0,-1\n\na/c.jpg,0.0,1,2\n")
    table = read_table(path, 3)
    assert table.attributes is None
    assert table.labels.tolist() == [[1, 0, -1], [0, 1, 2]]


# ---- verification


def test_missing_and_truncated_images_are_named_and_nothing_is_left(small, build):
    small.path(TRAIN[4]).unlink()
    broken = small.path(VALIDATION[0])
    broken.unlink()
    broken.write_bytes(small.picture.read_bytes()[:-100])
    report, text = deviations(build, small)
    assert report.missing == {TRAIN[4]: "no such file"}
    assert list(report.broken) == [VALIDATION[0]]
    assert str(broken) in text
    assert "15 of 17 images" in text
    left = [path for path in (small.root.parent / "cache").rglob("*") if path.is_file()]
    assert all(path.suffix == ".lock" for path in left)
    data = build(small, allow_partial=True).as_dataset()
    assert {split: len(rows) for split, rows in data.items()} == {"train": 10, "validation": 5}


def test_permuted_columns_are_an_error(small, build):
    order = [NAMES[1], NAMES[0], *NAMES[2:]]
    small.write("annotations/val_gt/val_gt.csv", VALIDATION, ["# image", *order], order=order)
    report, _ = deviations(build, small, allow_partial=True)
    assert report.errors == [
        "table of `validation`: attribute 0 must be `Age-Young`, got `Age-Adult`",
        "table of `validation`: attribute 1 must be `Age-Adult`, got `Age-Young`",
    ]


def test_wrong_label_is_named(small, build):
    small.labels[TRAIN[2]][39] = 2
    small.write("phase1/train/train.csv", TRAIN, NAMES)
    report, _ = deviations(build, small)
    wanted = "labels of `Accessory-Hat` must be 0, 1 or -100, got [2] in 1 image(s): "
    assert report.errors == [wanted + TRAIN[2]]


def test_counts_of_the_tables_are_checked(small):
    small.write("phase1/train/train.csv", TRAIN[1:], NAMES)
    small.write("annotations/val_gt/val_gt.csv", [*VALIDATION[1:], TRAIN[3]], ["# image", *NAMES])
    assert errors_of(small) == [
        "split `train` must have 11 images, got 10",
        "source of validation `market1501` must have 2 images, got 1",
        "source of validation `pa100k` must have 3 images, got 4",
        "1 image(s) come twice",
    ]


@pytest.mark.parametrize(
    ("absent", "found"),
    [
        ("phase1", r"train.csv \(not found\), val_gt.csv \(found\)"),
        ("annotations", r"train.csv \(found\), val_gt.csv \(not found\)"),
        ("images", "0 of market1501, 0 of pa100k, 0 of peta"),
    ],
)
def test_absent_data_says_where_to_get_it(small, build, absent, found):
    for name in ("Market1501", "PA100k", "PETA") if absent == "images" else (absent,):
        shutil.rmtree(small.path(name))
    with pytest.raises(FileNotFoundError, match=found) as caught:
        build(small)
    assert "https://github.com/speckean/upar_challenge" in str(caught.value)
    assert "phase1/train/train.csv" in str(caught.value)


# ---- the schema


@pytest.fixture(scope="module")
def schema(repository):
    return AttributeSchema.from_json(repository / "datasets_scripts/schemas/upar.json")


SENTENCES = [
    (
        [
            *("Age-Adult", "Gender-Female", "Hair-Length-Long", "UpperBody-Length-Short"),
            *("UpperBody-Color-Red", "UpperBody-Color-White", "LowerBody-Length-Short"),
            *("LowerBody-Color-Black", "LowerBody-Type-Trousers&Shorts", "Accessory-Backpack"),
            *("Accessory-Glasses-Sun", "Accessory-Hat"),
        ],
        "An adult woman with long hair, wearing a short-sleeved red and white top, short black "
        "trousers, sunglasses and a hat, carrying a backpack.",
    ),
    (
        [
            *("Age-Old", "Hair-Length-Short", "Hair-Length-Bald", "UpperBody-Color-Other"),
            *("LowerBody-Color-Grey", "LowerBody-Type-Skirt&Dress", "Accessory-Bag"),
        ],
        "An elderly bald man with short hair, wearing a long-sleeved top of another colour and a "
        "long grey skirt or dress, carrying a bag.",
    ),
    (
        ["Age-Young", "LowerBody-Length-Short", "LowerBody-Color-Blue"],
        "A young man wearing a long-sleeved top and blue short lower-body clothes.",
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


TEXTS = [
    (
        "young lady with long hair, red and white T-shirt, black shorts, sunglasses",
        {
            "age": "young",
            "gender": "female",
            "hair length": "long",
            "upper colour": ["red", "white"],
            "lower colour": "black",
            "lower length": "short",
            "lower type": "trousers",
            "glasses": "sun",
        },
    ),
    (
        "a bald man in a multicoloured sweater and jeans without glasses, hat or backpack",
        {
            "hair length": "bald",
            "gender": "male",
            "upper colour": "other",
            "lower type": "trousers",
            "Accessory-Glasses-Normal": False,
            "hat": False,
            "backpack": False,
        },
    ),
    (
        "she wears a short-sleeved blouse and a navy miniskirt and carries a purse",
        {
            "gender": "female",
            "upper sleeve": "short",
            "lower colour": "blue",
            "lower length": "short",
            "lower type": "skirt or dress",
            "bag": True,
        },
    ),
]


@pytest.mark.parametrize(("text", "query"), TEXTS)
def test_free_text_is_understood(schema, text, query):
    parsed = schema.parse(text)
    assert parsed.not_understood == ()
    assert parsed.query == query


def test_the_file_is_as_it_would_be_written(schema, repository, tmp_path):
    schema.to_json(tmp_path / "schema.json")
    stored = repository / "datasets_scripts/schemas/upar.json"
    assert (tmp_path / "schema.json").read_text() == stored.read_text()


# ---- the real annotation


@pytest.fixture(scope="module")
def real(shared_folder):
    """The whole validation ground truth and the published fifth of the training rows."""
    folder = shared_folder / "data/upar"
    return {
        "train": read_table(folder / "train_sample.csv", 40),
        "validation": read_table(folder / "val_gt.csv", 40),
    }


def test_real_tables_name_the_schema_and_the_published_images(real, schema, shared_folder):
    assert real["train"].attributes == real["validation"].attributes == list(schema.attributes)
    assert len(real["train"].image_names) == 19534
    names = real["validation"].image_names
    assert len(set(names)) == len(names) == UPAR2024.split_sizes["validation"]
    folders = {}
    for name in names:
        folder = name.rpartition("/")[0]
        folders[folder] = folders.get(folder, 0) + 1
    assert folders == {
        "Market1501/bounding_box_test": 13093,
        "Market1501/query": 3365,
        PA100K: 9986,
        "PETA/images": 6963,
    }
    lists = (shared_folder / f"data/market1501/market1501_{p}.csv" for p in ("query", "test"))
    published = "".join(path.read_text() for path in lists)
    market = {line.split(",")[1] for line in published.splitlines()}
    assert {n.partition("/")[2] for n in names if n.startswith("Market")} <= market


def test_real_labels_equal_another_reader(real, shared_folder):
    path = shared_folder / "data/upar/val_gt.csv"
    plain = np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 20, 40), dtype=int)
    np.testing.assert_array_equal(real["validation"].labels[:, [0, 19, 39]], plain)
    assert np.unique(real["validation"].labels).tolist() == [0, 1]


def test_real_groups_are_exclusive_where_the_schema_says_so(real, schema):
    labels = real["validation"].labels
    for group in schema.groups:
        columns = [schema.index(attribute) for attribute in group.options.values()]
        several = int((labels[:, columns].sum(axis=1) > 1).sum())
        assert (several <= 10) == group.exclusive, (group.name, several)


def test_real_vectors_are_read_back_from_their_sentences(real, schema):
    """Every value that a sentence states is in the row, and every 1 of the row is stated."""
    vectors = np.unique(real["validation"].labels, axis=0)
    assert len(vectors) == 3462
    for row in vectors[::40]:
        parsed = schema.parse(schema.describe(row))
        said = np.array(schema.query_values(parsed.query))
        assert parsed.not_understood == ()
        np.testing.assert_array_equal(said == 1, row == 1)


def test_real_records_have_the_published_form(shared_folder, monkeypatch, tmp_path):
    folder = shared_folder / "data/upar"
    monkeypatch.setattr(UPAR2024, "split_sizes", {"train": 19534, "validation": 33407})
    report = VerificationReport("upar2024")
    builder = UPAR2024(cache_dir=str(tmp_path), config_name="without_peta")
    tables = [folder / "train_sample.csv", folder / "val_gt.csv"]
    found = builder.read_records(PersonSource(tables, images={}), report)
    assert report.errors == []
    assert builder.published_sizes() == {"train": 15791 + 1996, "validation": 6963}
    assert np.unique(found.extra["source"][found.splits["validation"]]).tolist() == [2]
    market = found.extra["source"] == 0
    assert np.unique(found.cameras[market]).tolist() == [1, 2, 3, 4, 5, 6]
    assert found.person_ids[market].min() > 0
    assert np.unique(found.person_ids[~market]).tolist() == [-1]


@pytest.mark.slow
def test_the_real_tree_is_built(real, shared_folder, monkeypatch, tmp_path):
    """One drawn image under all real names; the sample of the training rows."""
    monkeypatch.setattr(UPAR2024, "split_sizes", {"train": 19534, "validation": 33407})
    root = tmp_path / "data"
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (16, 8, 3), dtype=np.uint8)
    PillowImage.fromarray(pixels).save(root / "one.png")
    for table in real.values():
        for number, name in enumerate(table.image_names):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            source = root / f"one{number // 20000}.png"  # File systems limit the links to a file.
            if not source.exists():
                shutil.copy(root / "one.png", source)
            os.link(source, path)
    for file, target in (("train_sample", "train"), ("val_gt", "val_gt")):
        shutil.copy(shared_folder / f"data/upar/{file}.csv", root / f"{target}.csv")
    where = {"data_dir": root, "cache_dir": tmp_path / "cache", "verify_images": False}
    rows = load_person_dataset("upar2024", split="validation", **where)
    assert rows["image_name"][:] == real["validation"].image_names
    np.testing.assert_array_equal(rows.with_format("numpy")["labels"], real["validation"].labels)
    assert len(np.unique(rows["category_id"])) == 3462
    held_out = load_person_dataset("upar2024", split="train", config_name="only_peta", **where)
    assert len(held_out) == 1747


@pytest.mark.slow
def test_the_real_crops_of_peta_are_built(real, shared_folder, monkeypatch, tmp_path):
    """The rows of the two other sources have no images here: they are named as missing."""
    monkeypatch.setattr(UPAR2024, "split_sizes", {"train": 19534, "validation": 33407})
    mapping = read_mapping(shared_folder / "data/peta/peta_file_mapping.txt")
    wanted = {
        split: [name for name in table.image_names if name.startswith("PETA/")]
        for split, table in real.items()
    }
    images = tmp_path / "data/PETA/images"
    images.mkdir(parents=True)
    with zipfile.ZipFile(shared_folder / "data/peta/peta.zip") as archive:
        for name in (*wanted["train"], *wanted["validation"]):
            number = int(name.rpartition("/")[2][:5])
            content = archive.read(f"PETA dataset/{mapping[number]}")
            (images / f"{number:05d}.png").write_bytes(content)
    for file, target in (("train_sample", "train"), ("val_gt", "val_gt")):
        shutil.copy(shared_folder / f"data/upar/{file}.csv", tmp_path / f"{target}.csv")
    builder = UPAR2024(data_dir=tmp_path, cache_dir=str(tmp_path / "cache"), allow_partial=True)
    builder.download_and_prepare()
    assert builder.report.broken == {}
    assert len(builder.report.missing) == 19534 - 1747 + 33407 - 6963
    data = builder.as_dataset()
    assert {split: rows["image_name"][:] for split, rows in data.items()} == wanted
    assert data["validation"][6962]["image"].size[1] > 30
