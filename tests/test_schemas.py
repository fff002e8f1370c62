"""The schemas of PA100K and RAPv2: every label can be said, and what is said is read back."""

import re

import numpy as np
import pytest
from scipy.io import loadmat

from clear_par.attributes_clear import UNKNOWN, AttributeSchema

NAMES = ("pa100k", "rapv2")
each_schema = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def schemas(repository):
    folder = repository / "datasets_scripts" / "schemas"
    return {name: AttributeSchema.from_json(folder / f"{name}.json") for name in NAMES}


@pytest.fixture(scope="module")
def pa100k_labels(shared_folder):
    struct = loadmat(shared_folder / "data/pa100k/annotation.mat")
    parts = [struct[f"{part}_label"] for part in ("train", "val", "test")]
    return np.concatenate(parts).astype(int)


def row(schema, present, absent=()):
    labels = dict.fromkeys(absent, 0) | dict.fromkeys(present, 1)
    assert set(labels) <= set(schema.attributes)
    return [labels.get(name, UNKNOWN) for name in schema.attributes]


def read_back(schema, values):
    """The labels that the description of a row states; nothing in it may be strange."""
    parsed = schema.parse(schema.describe(values))
    assert parsed.not_understood == (), schema.describe(values)
    return np.array(schema.query_values(parsed.query))


@each_schema
def test_every_attribute_is_said_and_read_back(schemas, name):
    schema = schemas[name]
    reached = [a for group in schema.groups for a in group.options.values()]
    reached += [flag.attribute for flag in schema.flags]
    assert sorted(reached) == sorted(schema.attributes)
    for attribute in schema.attributes:
        only = row(schema, [attribute])
        assert read_back(schema, only)[schema.index(attribute)] == 1
        assert schema.query_values(schema.words(only).split(", "))[schema.index(attribute)] == 1


@each_schema
def test_the_file_is_as_it_would_be_written(schemas, name, repository, tmp_path):
    schemas[name].to_json(tmp_path / "schema.json")
    stored = repository / "datasets_scripts" / "schemas" / f"{name}.json"
    assert (tmp_path / "schema.json").read_text() == stored.read_text()


@each_schema
def test_all_attributes_are_evaluated(schemas, name):
    """And the other order that is told to the reader names each of them once."""
    schema = schemas[name]
    assert schema.evaluated == schema.attributes
    (text,) = re.findall(r"positions here: ([^.]*)\.", " ".join(schema.about))
    positions = []
    for item in text.split(", "):
        first, last = (item.split(" to ") * 2)[:2]
        positions += range(int(first), int(last) + 1)
    assert sorted(positions) == list(range(schema.num_attributes))


def test_names_of_pa100k_are_those_of_the_annotation(schemas, shared_folder):
    struct = loadmat(shared_folder / "data/pa100k/annotation.mat")
    assert list(schemas["pa100k"].attributes) == [str(cell[0][0]) for cell in struct["attributes"]]


def test_names_of_rapv2_are_the_selected_ones_of_all(schemas, shared_folder):
    folder = shared_folder / "data/rapv2"
    names = (folder / "rap_annotation_attribute-english.txt").read_text().split()
    selected = (folder / "selected_attribute_idx.txt").read_text().split()
    assert list(schemas["rapv2"].attributes) == [names[int(k) - 1] for k in selected]


def test_choices_of_pa100k_are_those_of_the_annotation(schemas, pa100k_labels):
    schema = schemas["pa100k"]
    numbers = {}  # of values that a row has, in each group
    for group in schema.groups:
        columns = [schema.index(a) for a in group.options.values()]
        counts = pa100k_labels[:, columns].sum(axis=1)
        numbers[group.name] = set(counts.tolist())
        assert group.exclusive
        if group.name == "lower type":
            assert (counts == 0).sum() == (counts[90_000:] == 0).sum() == 33
    one_hot = {group for group, found in numbers.items() if found == {1}}
    assert one_hot == {"age", "sleeve", "view"}
    assert all(found == {0, 1} for group, found in numbers.items() if group not in one_hot)


def test_real_rows_of_pa100k_are_read_back(schemas, pa100k_labels):
    schema = schemas["pa100k"]
    rows = np.unique(pa100k_labels, axis=0)
    for values in rows[::6]:  # 395 of the 2,370 distinct rows
        stated = read_back(schema, values)
        assert ((stated == 1) == (values == 1)).all()
        assert (values[stated == 0] == 0).all()


def test_random_rows_of_rapv2_are_read_back(schemas):
    schema = schemas["rapv2"]
    generator = np.random.default_rng(0)
    for _ in range(300):
        values = (generator.random(54) < 0.1).astype(int)
        for group in schema.groups:
            columns = [schema.index(a) for a in group.options.values()]
            if group.exclusive and values[columns].sum() > 1:
                values[columns] = 0
        assert ((read_back(schema, values) == 1) == (values == 1)).all(), schema.describe(values)


SENTENCES = [
    (
        "pa100k",
        "Female AgeOver60 LongSleeve Trousers Hat Backpack Back",
        "An elderly woman wearing a long-sleeved top, trousers and a hat, carrying a backpack, "
        "seen from behind.",
    ),
    (
        "pa100k",
        "Age18-60 ShortSleeve UpperLogo Shorts LowerPattern Glasses HandBag ShoulderBag "
        "HoldObjectsInFront Front",
        "An adult man wearing a short-sleeved top with a logo, patterned shorts and glasses, "
        "carrying a handbag and a shoulder bag, holding objects in front, seen from the front.",
    ),
    (
        "pa100k",
        "Female AgeLess18 LongSleeve LongCoat UpperSplice Skirt&Dress LowerStripe boots Side",
        "A female child wearing a long-sleeved colour-blocked overcoat, a striped skirt or dress "
        "and boots, seen from the side.",
    ),
    ("pa100k", "ShortSleeve UpperStride", "A man wearing a short-sleeved striped top."),
    ("pa100k", "LowerPattern", "A man wearing patterned lower-body clothes."),
    (
        "rapv2",
        "Age17-30 BodyThin hs-BlackHair hs-LongHair ub-SuitUp lb-LongTrousers shoes-Leather "
        "action-Calling",
        "A thin young adult man with long black hair, wearing a suit jacket, long trousers and "
        "leather shoes, making a phone call.",
    ),
    (
        "rapv2",
        "Femal Age46-60 BodyNormal Customer ub-Cotton lb-Dress shoes-Other attachment-HandTrunk "
        "action-Pulling action-Talking",
        "A middle-aged female customer of normal build wearing a padded coat, a dress and shoes "
        "of another kind, carrying a suitcase, talking and pulling something.",
    ),
    (
        "rapv2",
        "AgeLess16 BodyFat ub-Tight ub-ShortSleeve hs-Hat action-CarryingByArm",
        "A heavily built male child wearing a short-sleeved tight top and a hat, carrying "
        "something on the arm.",
    ),
    ("rapv2", "Femal AgeLess16 Employee", "An underage female employee."),
    ("rapv2", "hs-BaldHead", "A bald man."),
]


@pytest.mark.parametrize(("name", "present", "expected"), SENTENCES)
def test_sentence_by_hand(schemas, name, present, expected):
    schema = schemas[name]
    female = "Female" if name == "pa100k" else "Femal"
    assert schema.describe(row(schema, present.split(), {female} - {*present.split()})) == expected


MAN, WOMAN, BACK = {"gender": "male"}, {"gender": "female"}, {"view": "back"}
TEXTS = [
    (
        "pa100k",
        "woman over 60 with a hat and a backpack, seen from behind, in a long-sleeved top and "
        "trousers",
        WOMAN
        | BACK
        | {"age": "over 60", "hat": True, "backpack": True, "sleeve": "long"}
        | {"lower type": "trousers"},
        (),
    ),
    ("pa100k", "view: back", BACK, ()),
    ("pa100k", "rear view of a boy", BACK | MAN, ()),
    (
        "pa100k",
        "a girl in a dress, side view",
        WOMAN | {"lower type": "skirt or dress", "view": "side"},
        (),
    ),
    (
        "pa100k",
        "a plaid shirt and striped pants",
        {"upper pattern": "plaid", "lower pattern": "striped", "lower type": "trousers"},
        (),
    ),
    ("pa100k", "a striped long coat", {"upper pattern": "striped", "long coat": True}, ()),
    ("pa100k", "holding something in front", {"objects in front": True}, ()),
    ("pa100k", "male, age 18-60, no hat", MAN | {"age": "18 to 60", "hat": False}, ()),
    # Neither is a view, though `Back` and `Front` are attributes.
    ("pa100k", "a man with a backpack on his back", MAN | {"backpack": True}, ("back",)),
    ("pa100k", "a lady, logo on the front", WOMAN | {"upper pattern": "logo"}, ("front",)),
    (
        "rapv2",
        "a thin man with black hair wearing a suit, calling",
        MAN
        | {"body shape": "thin", "black-haired": True, "upper type": "suit"}
        | {"calling": True},
        (),
    ),
    (
        "rapv2",
        "a woman with long black hair talking on the phone",
        WOMAN | {"long-haired": True, "black-haired": True, "calling": True},
        (),
    ),
    (
        "rapv2",
        "employee of average build, pulling a suitcase",
        {"role": "employee", "body shape": "normal", "pulling": True, "suitcase": True},
        (),
    ),
    ("rapv2", "a lady aged 31-45, not talking", WOMAN | {"age": "31 to 45", "talking": False}, ()),
    (
        "rapv2",
        "tight top, tight trousers",
        {"upper tight": True, "lower type": "tight trousers"},
        (),
    ),
    ("rapv2", "an elderly man in a red jacket", MAN | {"upper type": "jacket"}, ("elderly", "red")),
]


@pytest.mark.parametrize(("name", "text", "query", "reported"), TEXTS)
def test_free_text(schemas, name, text, query, reported):
    parsed = schemas[name].parse(text)
    assert parsed.query == query
    assert parsed.not_understood == reported
    assert schemas[name].query_values(parsed.query)


def test_one_value_of_a_choice_denies_the_others(schemas):
    schema = schemas["pa100k"]
    values = dict(zip(schema.attributes, schema.query_values({"view": "side"}), strict=True))
    assert {name for name, value in values.items() if value == 0} == {"Front", "Back"}
    male = schema.query_values({"gender": "male"})
    assert male == row(schema, [], ["Female"])
