import doctest
import importlib
import json
import math

import numpy as np
import pytest
from scipy.io import loadmat
from transformers.dynamic_module_utils import get_class_from_dynamic_module

from clear_par.attributes_clear import UNKNOWN, AttributeSchema

SOURCES = ("attributes_clear", "phrases_clear", "lexicon_clear", "queries_clear")

# A schema of another data set: a view, ages after the noun, a value without an attribute, boots.
STREET = {
    "name": "street",
    "attributes": ["Female", "AgeOver60", "Front", "Back", "ShortSleeve", "UpperPlaid", "boots"],
    "evaluated": ["Female", "boots"],
    "parts": [
        {"name": "person", "sections": ["person"], "noun": "person"},
        {"name": "upper", "sections": ["upper"], "lead": "wearing", "noun": "top"},
        {"name": "feet", "sections": ["feet"], "lead": "wearing", "noun": "shoes", "plural": True},
        {"name": "view", "sections": ["view"], "lead": "seen from"},
    ],
    "groups": [
        {
            "name": "gender",
            "section": "person",
            "exclusive": True,
            "otherwise": "male",
            "role": "noun",
            "options": [
                {"value": "female", "attribute": "Female", "text": "woman"},
                {"value": "male", "text": "man"},
            ],
        },
        {
            "name": "view",
            "section": "view",
            "exclusive": True,
            "otherwise": "side",
            "role": "items",
            "options": [
                {"value": "front", "attribute": "Front", "text": "the front"},
                {"value": "back", "attribute": "Back", "text": "the back"},
                {"value": "side", "text": "the side"},
            ],
        },
    ],
    "flags": [
        {"name": "elderly", "attribute": "AgeOver60", "section": "person", "role": "adjective"},
        {
            "name": "short sleeves",
            "attribute": "ShortSleeve",
            "section": "upper",
            "text": "short-sleeved",
            "role": "adjective",
        },
        {"name": "plaid", "attribute": "UpperPlaid", "section": "upper", "role": "adjective"},
        {"name": "boots", "attribute": "boots", "section": "feet", "role": "plural"},
    ],
}


@pytest.fixture(scope="module")
def peta(repository) -> AttributeSchema:
    return AttributeSchema.from_json(repository / "datasets_scripts" / "schemas" / "peta.json")


@pytest.fixture(scope="module")
def street() -> AttributeSchema:
    return AttributeSchema.from_dict(STREET)


@pytest.fixture(scope="module")
def real_labels(shared_folder):
    data = loadmat(shared_folder / "data" / "peta" / "PETA.mat")["peta"]["data"][0, 0]
    return data[:, 4:].astype(int)


def row(schema: AttributeSchema, present=(), absent=()) -> list[int]:
    labels = dict.fromkeys(absent, 0) | dict.fromkeys(present, 1)
    assert set(labels) <= set(schema.attributes)
    return [labels.get(name, UNKNOWN) for name in schema.attributes]


# ---- the vocabulary of PETA -------------------------------------------------------------------


def test_every_attribute_is_reachable_once(peta):
    assert peta.num_attributes == len(peta.attributes) == 105
    options = [a for group in peta.groups for a in group.options.values()]
    assert sorted(options + [flag.attribute for flag in peta.flags]) == sorted(peta.attributes)
    for name in peta.attributes:  # each is said by itself, and read back
        only = row(peta, [name])
        parsed = peta.parse(peta.describe(only))
        assert peta.query_values(parsed.query)[peta.index(name)] == 1, name
        assert parsed.not_understood == ()
        assert peta.query_values(peta.words(only).split(", "))[peta.index(name)] == 1


def test_evaluated_are_the_first_35(peta):
    assert peta.evaluated == peta.attributes[:35]
    assert peta.evaluated_indices == list(range(35))
    assert (peta.index("personalLess30"), peta.index("upperBodyVNeck")) == (0, 34)


def test_names_are_those_of_the_annotation(peta, shared_folder):
    annotation = loadmat(shared_folder / "data" / "peta" / "PETA.mat")["peta"]
    names = [str(cell[0][0]) for cell in annotation["attribute"][0, 0]]
    assert list(peta.attributes) == names
    assert [i + 5 for i in peta.evaluated_indices] == annotation["selected_attribute"][0, 0][
        0
    ].tolist()


def test_exclusive_groups_are_exclusive_in_the_annotation(peta, real_labels):
    for group in peta.groups:
        columns = [peta.index(a) for a in group.options.values()]
        several = int((real_labels[:, columns].sum(1) > 1).sum())
        assert (several <= 10) == group.exclusive, (group.name, several)


# ---- sentences --------------------------------------------------------------------------------

SENTENCES = [
    (["personalFemale"], "A woman."),
    (["upperBodyRed"], "A person wearing a red top."),
    (["lowerBodyBlack"], "A person wearing black lower-body clothes."),
    (["footwearBrown"], "A person wearing brown footwear."),
    (["upperBodyOrange"], "A person wearing an orange top."),
    (["personalLarger60"], "An elderly person."),
    (["personalLess15"], "A child."),
    (["personalLess15", "personalFemale"], "A female child."),
    (["personalMale", "hairBald", "personalLess60"], "A middle-aged bald man."),
    (["hairLong", "hairYellow"], "A person with long blond hair."),
    (["carryingUmbrella"], "A person carrying an umbrella."),
    (["carryingNothing", "accessoryNothing"], "A person wearing no accessories, carrying nothing."),
    (["lowerBodyJeans"], "A person wearing jeans."),
    (["lowerBodyShortSkirt", "lowerBodyJeans"], "A person wearing jeans and a short skirt."),
    (["upperBodyRed", "upperBodyWhite"], "A person wearing a red and white top."),
    (["upperBodyOther", "upperBodyLogo"], "A person wearing a top of another kind with a logo."),
    (["footwearBoots", "footwearStocking"], "A person wearing boots with stockings."),
    (
        ["carryingBackpack", "carryingBabyBuggy", "carryingOther"],
        "A person carrying a backpack and another item, pushing a baby buggy.",
    ),
    (
        [
            *("personalLess45", "personalFemale", "hairLong", "upperBodyShortSleeve"),
            *("upperBodyWhite", "lowerBodyTrousers", "lowerBodyBlack", "carryingBackpack"),
        ],
        "An adult woman with long hair, wearing a short-sleeved white top and black trousers, "
        "carrying a backpack.",
    ),
    (
        [
            *("personalMale", "upperBodyJacket", "upperBodyPlaid", "upperBodyCasual"),
            *("upperBodyGrey", "lowerBodySuits", "footwearLeatherShoes", "accessoryHat"),
            "accessorySunglasses",
        ],
        "A man wearing a casual grey plaid jacket, suit trousers, leather shoes, a hat and "
        "sunglasses.",
    ),
]


@pytest.mark.parametrize(("present", "expected"), SENTENCES)
def test_sentence_by_hand(peta, present, expected):
    assert peta.describe(row(peta, present)) == expected
    assert peta.describe(np.array(row(peta, present))) == expected


def test_absent_and_unknown_are_not_mentioned(peta):
    rest = [name for name in peta.attributes if name not in ("upperBodyRed", "personalFemale")]
    assert peta.describe(row(peta, ["upperBodyRed", "personalFemale"], rest)) == (
        "A woman wearing a red top."
    )


def test_otherwise_is_said_only_when_it_is_known(peta, street):
    papers = peta.subset(peta.evaluated)
    assert papers.describe(row(papers, ["accessoryHat"])) == "A person wearing a hat."
    assert papers.describe(row(papers, ["accessoryHat"], ["personalMale"])) == (
        "A woman wearing a hat."
    )
    assert papers.readable(row(papers, [], ["personalMale"])) == {"gender": "female"}
    assert peta.readable(row(peta, [], ["personalMale", "personalFemale"])) == {}
    assert street.describe(row(street, ["boots"], ["Front"])) == "A person wearing boots."
    assert street.describe(row(street, [], ["Front", "Back"])) == "A person seen from the side."


def test_the_template_serves_other_data_sets(street):
    present = ["Female", "AgeOver60", "ShortSleeve", "UpperPlaid", "boots", "Back"]
    assert street.describe(row(street, present)) == (
        "An elderly woman wearing a short-sleeved plaid top and boots, seen from the back."
    )
    assert street.words(row(street, present)) == (
        "gender female, view back, elderly, short sleeves, plaid, boots"
    )


def test_any_names_make_a_schema():
    schema = AttributeSchema.from_names(["Hat", "upperBodyRed", "Age-Young", "Skirt&Dress"], "mine")
    assert [flag.name for flag in schema.flags] == [
        "hat",
        "upper body red",
        "age young",
        "skirt&dress",
    ]
    assert schema.evaluated == schema.attributes
    assert schema.describe([1, 1, 0, UNKNOWN]) == "A person with hat and upper body red."
    assert schema.query_values(["Hat", "upper body red"]) == [1, 1, UNKNOWN, UNKNOWN]
    assert schema.parse("upper body red, no hat").query == {"upper body red": True, "hat": False}
    assert AttributeSchema.from_dict(schema.to_dict()) == schema


def test_words_name_what_is_present(peta):
    assert peta.words(row(peta, ["upperBodyRed", "carryingBackpack"], ["accessoryHat"])) == (
        "upper colour red, backpack"
    )


@pytest.mark.parametrize("say", ["describe", "words"])
@pytest.mark.parametrize("label", [0, UNKNOWN])
def test_nothing_to_say_is_an_error(peta, say, label):
    with pytest.raises(ValueError, match="`values` must state a present attribute"):
        getattr(peta, say)([label] * 80 + [0] * 7 + [label] + [0] * 17)


@pytest.mark.parametrize("method", ["describe", "words", "readable"])
def test_wrong_rows_are_named(peta, method):
    with pytest.raises(ValueError, match=r"`values` must be 105 labels 1, 0 or -100.*\(3,\)"):
        getattr(peta, method)([1, 0, 1])
    with pytest.raises(ValueError, match=r"`values` must be 105 labels.*-1"):
        getattr(peta, method)([-1] + [0] * 104)


# ---- JSON -------------------------------------------------------------------------------------


def test_json_round_trip(peta, street, tmp_path):
    for schema in (peta, street, peta.subset(peta.evaluated)):
        schema.to_json(tmp_path / "schema.json")
        assert AttributeSchema.from_json(tmp_path / "schema.json") == schema
        # Other writers sort the keys; the order of options is also that of the sentence.
        shuffled = json.loads(json.dumps(schema.to_dict(), sort_keys=True))
        assert AttributeSchema.from_dict(shuffled).to_dict() == schema.to_dict()
    assert [file.name for file in tmp_path.iterdir()] == ["schema.json"]


def test_the_file_of_peta_is_as_it_would_be_written(peta, repository, tmp_path):
    peta.to_json(tmp_path / "peta.json")
    stored = repository / "datasets_scripts" / "schemas" / "peta.json"
    assert (tmp_path / "peta.json").read_text() == stored.read_text()


def test_written_json_breaks_no_string(tmp_path):
    schema = AttributeSchema.from_names(
        ["red-and-white long scarf " * 9 + str(i) for i in range(9)]
    )
    schema.to_json(tmp_path / "schema.json")
    assert AttributeSchema.from_json(tmp_path / "schema.json") == schema


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "unknown or missing .*'colour'"),
        ({"attributes": ["Female"]}, "`options and flags` must have every name exactly once"),
        ({"attributes": STREET["attributes"] + ["boots"]}, "`attributes` must have every name"),
        ({"evaluated": ["boots", "Female"]}, "`evaluated` must list some of `attributes` in"),
        ({"evaluated": "boots"}, "`evaluated` of `AttributeSchema` must be a list, got 'boots'"),
        ({"flags": STREET["flags"] + STREET["flags"][:1]}, "exactly once.*AgeOver60"),
        ({"parts": STREET["parts"][:-1]}, "`section` of 'view front' must be one of .*'view'"),
        (
            {"flags": [*STREET["flags"][:-1], {**STREET["flags"][-1], "role": "shoe"}]},
            "`role` of 'boots' must be one of .*'shoe'",
        ),
        (
            {"flags": [*STREET["flags"][:-1], {**STREET["flags"][-1], "part": "toe"}]},
            "`part` of 'boots' must be one of .*'toe'",
        ),
        (
            {"flags": [*STREET["flags"][:-1], {**STREET["flags"][-1], "name": "VIEW"}]},
            "`names of groups and flags` must have every name exactly once.*view",
        ),
    ],
)
def test_wrong_schemas_are_named(change, message, tmp_path):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps({**STREET, **change}))
    with pytest.raises(ValueError, match=f"wrong.json.*{message}"):
        AttributeSchema.from_json(path)


@pytest.mark.parametrize("text", ["{", "[]", '{"groups": [{"options": [{}]}]}', "3"])
def test_a_file_that_is_no_schema_is_named(tmp_path, text):
    (tmp_path / "no.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"`path` must be the JSON file of a schema, got .*no\.json"
    ):
        AttributeSchema.from_json(tmp_path / "no.json")


# ---- label rows and probabilities -------------------------------------------------------------


def test_readable_is_the_inverse_of_query_values(peta):
    query = {"gender": "male", "upper colour": ["black", "white"], "hat": True}
    assert peta.readable(peta.query_values(query)) == query
    generator = np.random.default_rng(0)
    for _ in range(200):
        values = generator.choice([1, 0, UNKNOWN], size=105, p=[0.2, 0.4, 0.4])
        values[peta.index("personalFemale")] = 1  # never an empty row
        again = np.array(peta.query_values(peta.readable(values)))
        assert ((again == 1) == (values == 1)).all()
        assert peta.describe(values) == peta.describe(values.tolist())
        assert peta.describe(values)[-1] == "."


def test_subset_keeps_order_and_meaning(peta):
    small = peta.subset(["upperBodyRed", "personalLess30", "accessoryHat"])
    assert small.attributes == ("upperBodyRed", "personalLess30", "accessoryHat")
    assert small.evaluated == ("personalLess30", "accessoryHat")
    assert [group.name for group in small.groups] == ["age", "upper colour"]
    assert small.describe([1, 1, 0]) == "A young adult person wearing a red top."
    with pytest.raises(ValueError, match="`name` must name an attribute of 'peta', got 'hat'"):
        peta.subset(["hat"])


def test_decode_by_hand(peta, street):
    p = dict.fromkeys(peta.attributes, 0.01)
    p |= {"personalMale": 0.98, "personalFemale": 0.1, "upperBodyRed": 0.91, "upperBodyBlue": 0.6}
    p |= {"carryingBackpack": 0.87, "accessoryHat": 0.5}
    decoded = peta.decode([p[name] for name in peta.attributes])
    assert list(decoded) == [e.name for e in (*peta.groups, *peta.flags)]
    assert decoded["gender"] == ("male", 0.98)
    assert decoded["upper colour"] == ("red", 0.91)
    assert decoded["backpack"] == (True, 0.87)
    assert decoded["hat"] == (False, 0.5)  # strictly above the threshold
    assert decoded["sunglasses"] == (False, 0.99)
    assert decoded["lower colour"][1] == 0.01  # the most probable, however improbable
    # Female, AgeOver60, Front, Back, ShortSleeve, UpperPlaid, boots
    decoded = street.decode([0.2, 0.3, 0.4, 0.1, 0.2, 0.9, 0.25], threshold=0.2)
    assert decoded["gender"] == ("male", 0.8)
    assert decoded["view"] == ("front", 0.4)
    assert decoded["short sleeves"] == (False, 0.8)
    assert decoded["boots"] == (True, 0.25)
    view, probability = street.decode([0.2, 0.3, 0.4, 0.1, 0.2, 0.9, 0.25])["view"]
    assert view == "side"
    assert math.isclose(probability, 0.6 * 0.9)


def test_decode_with_a_threshold_for_each_attribute(street):
    """Front, back, else side: the most probable option above its own threshold."""
    # Female, AgeOver60, Front, Back, ShortSleeve, UpperPlaid, boots
    probabilities = [0.2, 0.3, 0.4, 0.1, 0.2, 0.9, 0.25]

    def decode(female, front, back, boots):
        return street.decode(probabilities, [female, 0.5, front, back, 0.5, 0.5, boots])

    decoded = decode(0.1, 0.3, 0.05, 0.3)
    assert decoded["gender"] == ("female", 0.2)
    assert decoded["view"] == ("front", 0.4)
    assert decoded["boots"] == (False, 0.75)
    decoded = decode(0.3, 0.6, 0.05, 0.2)
    assert decoded["gender"] == ("male", 0.8)
    assert decoded["view"] == ("back", 0.1)
    assert decoded["boots"] == (True, 0.25)
    assert decode(0.3, 0.6, 0.2, 0.2)["view"] == ("side", pytest.approx(0.6 * 0.9))


@pytest.mark.parametrize("wrong", [[0.5] * 104, [1.5] + [0.5] * 104, [float("nan")] * 105])
def test_decode_wants_probabilities(peta, wrong):
    with pytest.raises(ValueError, match=r"`probabilities` must be 105 numbers in .*sigmoid"):
        peta.decode(wrong)


# ---- as code ----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_docstring_examples(source):
    result = doctest.testmod(importlib.import_module(f"clear_par.{source}"))
    assert result.failed == 0
    assert result.attempted > 0


def test_it_loads_as_remote_code(repository, peta):
    remote = get_class_from_dynamic_module("attributes_clear.AttributeSchema", str(repository))
    values = row(peta, ["upperBodyRed"])
    assert remote is not AttributeSchema
    assert remote.from_dict(peta.to_dict()).describe(values) == "A person wearing a red top."
