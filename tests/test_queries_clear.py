import random

import numpy as np
import pytest
from scipy.io import loadmat

from clear_par.attributes_clear import UNKNOWN, AttributeSchema


@pytest.fixture(scope="module")
def peta(repository) -> AttributeSchema:
    return AttributeSchema.from_json(repository / "datasets_scripts" / "schemas" / "peta.json")


def labels(schema: AttributeSchema, query) -> dict[str, int]:
    values = schema.query_values(query)
    assert len(values) == schema.num_attributes
    return {n: v for n, v in zip(schema.attributes, values, strict=True) if v != UNKNOWN}


# ---- dicts and lists of names -----------------------------------------------------------------


def test_flags_and_raw_names(peta):
    query = {"backpack": True, "hat": False, "hairBald": True, "upperBodyRed": False}
    assert labels(peta, query) == {
        "carryingBackpack": 1,
        "accessoryHat": 0,
        "hairBald": 1,
        "upperBodyRed": 0,
    }


def test_one_value_of_an_exclusive_group_excludes_the_others(peta):
    assert labels(peta, {"gender": "female"}) == {"personalFemale": 1, "personalMale": 0}
    assert labels(peta, {"personalMale": True}) == {"personalMale": 1, "personalFemale": 0}
    assert labels(peta, {"personalMale": False}) == {"personalMale": 0}
    ages = labels(peta, {"age": "over 60"})
    assert ages.pop("personalLarger60") == 1
    assert len(ages) == 4
    assert set(ages.values()) == {0}


def test_values_of_an_open_group_leave_the_others_unsaid(peta):
    assert labels(peta, {"upper colour": "red"}) == {"upperBodyRed": 1}
    both = {"upperBodyBlack": 1, "upperBodyWhite": 1}
    assert labels(peta, {"upper colour": ["black", "white"]}) == both
    assert labels(peta, {"upper colour": ("black", "white")}) == both


def test_a_value_without_an_attribute_says_that_the_options_are_absent(peta):
    papers = peta.subset(peta.evaluated)
    assert labels(papers, {"gender": "female"}) == {"personalMale": 0}
    assert labels(papers, ["female"]) == {"personalMale": 0}
    assert labels(papers, papers.parse("a woman with a hat").query) == {
        "personalMale": 0,
        "accessoryHat": 1,
    }
    with pytest.raises(ValueError, match="not understood: not a woman"):
        papers.parse("not a woman")  # no label says so


def test_names_are_found_in_other_spellings(peta):
    expected = {"upperBodyGrey": 1, "carryingMessengerBag": 1}
    assert labels(peta, {"Upper Color": "gray", "messenger_bag": True}) == expected
    assert labels(peta, ["upper-colour grey", "carryingmessengerbag"]) == expected


def test_lists_of_names(peta):
    assert labels(peta, ["backpack", "male", "upper colour red", "upperBodyBlue"]) == {
        "carryingBackpack": 1,
        "personalMale": 1,
        "personalFemale": 0,
        "upperBodyRed": 1,
        "upperBodyBlue": 1,
    }
    assert peta.query_values(iter(["backpack"])) == peta.query_values({"backpack": True})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"bagpack": True}, "a group, flag or attribute of 'peta', .*; closest: backpack"),
        ({"upper colour": "redd"}, "must name a value of 'upper colour' .*'redd'; closest: red"),
        ({"upper colour": 3}, "must be one or more of black, blue.*, got 3"),
        ({"upper colour": True}, r"`query\['upper colour'\]` must be one or more .*got True"),
        ({"upper colour": []}, r"`query\['upper colour'\]` must be one or more .*got \[\]"),
        ({"upper colour": [None]}, "`query` must name a value of 'upper colour' .*got None"),
        ({"backpack": "yes"}, r"`query\['backpack'\]` must be True or False, got 'yes'"),
        ({"backpack": UNKNOWN}, r"`query\['backpack'\]` must be True or False, got -100"),
        (["red"], "must say which 'red' it means, one of: hair colour red, upper colour red"),
        (["sunglases"], "a flag, value or attribute of 'peta', .*; closest: sunglasses"),
        (["zzzzzz"], "got 'zzzzzz'; for example: bald"),
        ({}, "`query` must name at least one attribute, got an empty query"),
        ([], "`query` must name at least one attribute, got an empty query"),
        ("red top", "`query` must be a dict or a list, got 'red top'; `parse` reads text"),
        ({"upper colour": "red", "upperBodyRed": False}, "not contradict itself, got upperBodyRed"),
    ],
)  # fmt: skip
def test_wrong_queries_are_named(peta, query, message):
    with pytest.raises(ValueError, match=message):
        peta.query_values(query)


# ---- free text --------------------------------------------------------------------------------

MAN, WOMAN = {"gender": "male"}, {"gender": "female"}
RED_TOP, HAT, NO_HAT = {"upper colour": "red"}, {"hat": True}, {"hat": False}
JEANS, TROUSERS = {"lower type": "jeans"}, {"lower type": "trousers"}
BLACK_TROUSERS = TROUSERS | {"lower colour": "black"}
SUIT = {"upper type": "suit", "lower type": "suit"}
LONG_HAIR = {"hair length": "long"}

UNDERSTOOD = [
    ("woman with a red top and a backpack", WOMAN | RED_TOP | {"backpack": True}),
    ("Red shirt; BLACK pants!", RED_TOP | BLACK_TROUSERS),
    ("red shirt/black trousers", RED_TOP | BLACK_TROUSERS),
    ("a guy in a gray T-shirt", MAN | {"upper colour": "grey", "upper type": "T-shirt"}),
    ("t shirts", {"upper type": "T-shirt"}),
    ("lady with rucksack, cap & scarf", WOMAN | {"backpack": True, "muffler": True} | HAT),
    ("red and white top", {"upper colour": ["red", "white"]}),
    ("hair is black and shirt is red", {"hair colour": "black"} | RED_TOP),
    ("hair black, top red, trousers black", {"hair colour": "black"} | RED_TOP | BLACK_TROUSERS),
    ("the top that is red", RED_TOP),
    ("shirt in red", RED_TOP),
    ("hair is long and black", LONG_HAIR | {"hair colour": "black"}),
    ("hair: long, upper colour: red, gender: male", LONG_HAIR | RED_TOP | MAN),
    ("jacket of red colour", RED_TOP | {"upper type": "jacket"}),
    ("a red coloured jacket", RED_TOP | {"upper type": "jacket"}),
    ("denim jacket", {"upper type": "jacket"}),
    ("long-haired woman", LONG_HAIR | WOMAN),
    ("blonde woman", {"hair colour": "yellow"} | WOMAN),
    ("blue and blond hair", {"hair colour": ["yellow", "blue"]}),
    ("short sleeves", {"upper sleeve": "short"}),
    ("short-sleeved red shirt", {"upper sleeve": "short"} | RED_TOP),
    ("a shirt without sleeves", {"upper sleeve": "none"}),
    ("long red skirt", {"lower type": "long skirt", "lower colour": "red"}),
    ("red skirt", {"lower type": "short skirt", "lower colour": "red"}),
    ("black suit", SUIT | {"upper colour": "black", "lower colour": "black"}),
    ("suit jacket and jeans", {"upper type": "suit"} | JEANS),
    ("plaid trousers", {"lower plaid": True} | TROUSERS),
    ("top with thin stripes and black trousers", {"upper thin stripes": True} | BLACK_TROUSERS),
    ("jeans and a thin-striped shirt", JEANS | {"upper thin stripes": True}),
    ("shorts", {"lower type": "shorts"}),
    ("boots with stockings", {"footwear type": "boots", "stockings": True}),
    ("a bald old man", {"bald": True, "age": "over 60"} | MAN),
    ("no hair", {"bald": True}),
    ("a child, female", {"age": "up to 15"} | WOMAN),
    ("women aged 16-30", WOMAN | {"age": "16 to 30"}),
    ("no hat", NO_HAT),
    ("not wearing a hat", NO_HAT),
    ("she isn't wearing a hat", WOMAN | NO_HAT),
    ("no hat or backpack", NO_HAT | {"backpack": False}),
    ("no hat and a backpack", NO_HAT | {"backpack": True}),
    ("no hat, jeans", NO_HAT | JEANS),
    ("without a hat and a backpack", NO_HAT | {"backpack": False}),
    ("without a hat and with a backpack", NO_HAT | {"backpack": True}),
    ("without a hat, umbrella or backpack", NO_HAT | {"umbrella": False, "backpack": False}),
    ("without a hat, carrying a backpack", NO_HAT | {"backpack": True}),
    ("hair is not black", {"hairBlack": False}),
    ("no long-sleeved shirt", {"upperBodyLongSleeve": False}),
    ("a man, not elderly", MAN | {"personalLarger60": False}),
    ("carrying nothing", {"carrying nothing": True}),
    ("not carrying anything", {"carrying nothing": True}),
    ("no accessories", {"no accessories": True}),
    ("pushing a pram", {"baby buggy": True}),
    ("a man\u2019s hat", MAN | HAT),
    ("upperBodyRed, personalMale", RED_TOP | MAN),
]  # fmt: skip


@pytest.mark.parametrize(("text", "query"), UNDERSTOOD)
def test_understood(peta, text, query):
    parsed = peta.parse(text)
    assert parsed.query == query
    assert parsed.not_understood == ()
    assert peta.query_values(parsed.query)


REPORTED = [
    ("woman in a red dress", WOMAN | RED_TOP | {"lower colour": "red"}, ["dress"]),
    ("a woman in red", WOMAN, ["red"]),
    ("a black man", MAN, ["black"]),
    ("a black backpack and trousers", {"backpack": True} | TROUSERS, ["black"]),
    ("a red woollen top", RED_TOP, ["woollen"]),
    ("dark blue or light grey top", {"upper colour": ["blue", "grey"]}, ["dark", "light"]),
    ("a red cape and black trousers", BLACK_TROUSERS, ["red cape"]),
    ("a man walking a dog", MAN, ["walking a dog"]),
    ("a 30 years old man", MAN, ["30 years old"]),
    ("long trousers", TROUSERS, ["long"]),
    ("man in a coat", MAN, ["coat"]),
    ("man with no beard and a hat", MAN | HAT, ["no beard"]),
    ("man without a hat, bag or moustache", MAN | NO_HAT, ["without bag", "without moustache"]),
    ("jeans, no red hat", JEANS, ["no red hat"]),
    ("man without blue jeans", MAN, ["without blue jeans"]),
    ("man, no shirt", MAN, ["no shirt"]),
    ("hat \U0001f600 \u5e3d\u5b50", HAT, ["\U0001f600 \u5e3d\u5b50"]),
]


@pytest.mark.parametrize(("text", "query", "reported"), REPORTED)
def test_what_is_not_understood_is_reported(peta, text, query, reported):
    parsed = peta.parse(text)
    assert parsed.query == query
    assert list(parsed.not_understood) == reported


@pytest.mark.parametrize(
    "text", ["", " ,. ", "a person", "mujer con falda", "no red hat", "nothing"]
)
def test_nothing_understood_is_an_error(peta, text):
    with pytest.raises(
        ValueError, match="`text` must name an attribute that the schema knows, got"
    ):
        peta.parse(text)


def test_no_word_is_lost_and_nothing_crashes(peta):
    generator = random.Random(0)
    known = "red black hat top hair trousers and , without no or is with a long suit V-neck".split()
    for _ in range(2000):
        words = [generator.choice([*known, "xylophone"]) for _ in range(generator.randint(1, 9))]
        try:
            parsed = peta.parse(" ".join(words))
        except ValueError as error:
            said = str(error).split("not understood:")[1]
        else:
            said = " ".join(parsed.not_understood)
        assert said.count("xylophone") == words.count("xylophone"), words


def test_real_descriptions_are_read_back(peta, shared_folder):
    annotation = loadmat(shared_folder / "data" / "peta" / "PETA.mat")["peta"]
    rows = annotation["data"][0, 0][::9, 4:].astype(int)  # 2,112 of the 19,000 images
    for values in rows[rows.any(axis=1)]:
        parsed = peta.parse(peta.describe(values))
        again = np.array(peta.query_values(parsed.query))
        assert parsed.not_understood == ()
        assert ((again == 1) == (values == 1)).all()


def test_random_descriptions_are_read_back(peta):
    generator = np.random.default_rng(1)
    for _ in range(500):
        values = (generator.random(105) < 0.08).astype(int)
        if values.any():
            parsed = peta.parse(peta.describe(values))
            again = np.array(peta.query_values(parsed.query))
            assert ((again == 1) == (values == 1)).all(), peta.describe(values)
