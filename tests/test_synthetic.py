"""The drawn pedestrians: same seed same pixels, and labels that say what is drawn."""

import colorsys
import csv
import doctest
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chi2_contingency

from clear_par.datasets_scripts import synthetic, synthetic_person
from clear_par.datasets_scripts.synthetic import (
    Pedestrian,
    Synthetic,
    draw_pedestrian,
    pedestrian_labels,
    sample_pedestrian,
    synthetic_crops,
)
from clear_par.datasets_scripts.synthetic_body import Rendition, build_body
from clear_par.datasets_scripts.synthetic_canvas import Canvas
from clear_par.datasets_scripts.synthetic_figure import paint_figure

SMALL = (32, 64)
SCHEMA = Synthetic.schema()
NEVER_KNOWN = {
    "personalLess30",
    "personalLess45",
    "personalLess60",
    "carryingBabyBuggy",
    "carryingShoppingTro",
}
SAMPLES = Path(synthetic.__file__).parents[1] / "assets" / "samples"
# As in the command that makes them, see the help of datasets_scripts/synthetic.py.
SAMPLES_SEED, SAMPLES_COUNT = 2936, 12


def labels_of(**traits):
    return dict(
        zip(SCHEMA.attributes, pedestrian_labels(Pedestrian(**traits), SCHEMA), strict=True)
    )


def read(path):
    with Image.open(path) as image:
        return pixels(image)


def pixels(image):
    return np.asarray(image.convert("RGB"), np.int16)


@pytest.fixture(scope="module")
def population():
    """Labels (2000, 105) and skin positions of the people of seed 0."""
    rows, skins = [], []
    for index in range(2000):
        rng = np.random.default_rng([0, 0, index])
        rows.append(pedestrian_labels(sample_pedestrian(rng), SCHEMA))
        skins.append(Rendition.sample(rng).skin_index)
    return np.array(rows), np.array(skins)


def columns(population, prefix):
    names = [name for name in SCHEMA.attributes if name.startswith(prefix)]
    return {name: population[0][:, SCHEMA.index(name)] for name in names}


# Determinism


def digest(seed):
    crops = synthetic_crops(3, seed, SMALL)
    return hashlib.sha256(b"".join(image.tobytes() for image, _, _ in crops)).hexdigest()


def test_same_seed_gives_the_same_pixels_in_another_process():
    code = (
        "import hashlib; from clear_par.datasets_scripts.synthetic import synthetic_crops; "
        "print(hashlib.sha256(b''.join(i.tobytes() for i, _, _ in "
        "synthetic_crops(3, 5, (32, 64)))).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == digest(5)
    assert digest(5) != digest(6)


def test_a_crop_does_not_depend_on_how_many_are_drawn():
    few, many = synthetic_crops(2, 3, SMALL), synthetic_crops(4, 3, SMALL)
    for (image, labels, person), (image2, labels2, person2) in zip(few, many[:2], strict=True):
        assert image.tobytes() == image2.tobytes()
        assert labels == labels2
        assert person == person2


def test_splits_show_different_people():
    train, test = (synthetic_crops(1, 0, SMALL, split=split)[0] for split in ("train", "test"))
    assert train[0].tobytes() != test[0].tobytes()


@pytest.mark.parametrize("size", [(16, 16), (64, 128), (50, 131)])
def test_size_is_kept(size):
    image = draw_pedestrian(Pedestrian(), np.random.default_rng(0), size)
    assert (image.size, image.mode) == (size, "RGB")


def test_too_small_a_size_is_refused():
    with pytest.raises(ValueError, match="`size` must be at least 16"):
        draw_pedestrian(Pedestrian(), np.random.default_rng(0), (15, 64))


# Labels


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        ({}, {"personalMale": 1, "personalFemale": 0, "personalLess15": 0, "hairShort": 1}),
        ({}, {"accessoryNothing": 1, "carryingNothing": 1, "upperBodyCasual": 1}),
        ({"gender": "female"}, {"personalMale": 0, "personalFemale": 1}),
        ({"age": "senior"}, {"personalLarger60": 1, "personalLess15": 0}),
        ({"age": "child"}, {"personalLarger60": 0, "personalLess15": 1}),
        ({"hair_colour": "grey"}, {"personalLarger60": -100, "hairGrey": 1, "hairBrown": 0}),
        ({"hair_length": "bald"}, {"hairBald": 1, "hairLong": 0, "hairShort": -100}),
        ({"hair_length": "bald"}, {"hairBlack": -100, "hairBrown": -100}),
        ({"hair_length": "bald", "hat": "cap"}, {"hairBald": -100, "accessoryHat": 1}),
        ({"kerchief": True}, {"hairLong": -100, "hairBrown": -100, "accessoryKerchief": 1}),
        ({"hat": "beanie"}, {"accessoryHat": 1, "accessoryNothing": 0, "accessoryHairBand": -100}),
        ({"view": "back"}, {"accessorySunglasses": -100, "accessoryNothing": -100}),
        ({"view": "back", "muffler": True}, {"accessoryMuffler": 1, "accessoryNothing": 0}),
        ({"sunglasses": True}, {"accessorySunglasses": 1, "accessoryNothing": 0}),
        ({"sunglasses": True, "view": "back"}, {"accessorySunglasses": -100}),
        ({"neck": "v"}, {"upperBodyVNeck": 1, "upperBodyTshirt": 1, "upperBodyShortSleeve": 1}),
        ({"neck": "v", "view": "back"}, {"upperBodyVNeck": -100}),
        ({"neck": "v", "muffler": True}, {"upperBodyVNeck": -100}),
        (
            {"upper": "suit", "sleeve": "long", "lower": "suit_trousers", "tie": True},
            {"upperBodySuit": 1, "upperBodyFormal": 1, "upperBodyCasual": 0, "lowerBodySuits": 1},
        ),
        ({"upper": "coat", "sleeve": "long"}, {"upperBodyOther": 1, "upperBodyCasual": -100}),
        ({"upper": "coat", "sleeve": "long", "lower": "hot_pants"}, {"lowerBodyHotPants": -100}),
        ({"upper": "tank_top", "sleeve": "none"}, {"upperBodyNoSleeve": 1, "upperBodyTshirt": 0}),
        (
            {"upper_pattern": "plaid", "upper_colour": "red", "upper_second_colour": "black"},
            {"upperBodyPlaid": 1, "upperBodyRed": 1, "upperBodyBlack": 1, "upperBodyWhite": 0},
        ),
        ({"upper_colour": "red"}, {"upperBodyRed": 1, "upperBodyWhite": 0, "upperBodyPlaid": 0}),
        ({"logo": True}, {"upperBodyLogo": 1}),
        ({"logo": True, "view": "back", "backpack": True}, {"upperBodyLogo": -100}),
        ({"logo": True, "view": "right"}, {"upperBodyLogo": -100}),
        ({"lower": "jeans"}, {"lowerBodyJeans": 1, "lowerBodyTrousers": 0, "lowerBodyCasual": 1}),
        ({"lower": "short_skirt", "stockings": True}, {"footwearStocking": 1}),
        ({"lower": "short_skirt"}, {"footwearStocking": 0, "lowerBodyShortSkirt": 1}),
        ({"lower": "trousers"}, {"footwearStocking": -100, "lowerBodyTrousers": 1}),
        ({"footwear": "sneakers"}, {"footwearSneaker": 1, "footwearShoes": 0}),
        ({"backpack": True, "view": "left"}, {"carryingBackpack": 1, "carryingNothing": 0}),
        ({"left_hand": "handbag"}, {"carryingOther": 1, "carryingNothing": 0}),
        ({"box": True}, {"carryingOther": 1, "carryingNothing": 0}),
        (
            {"left_hand": "plastic_bag", "right_hand": "luggage"},
            {"carryingPlasticBags": 1, "carryingLuggageCase": 1, "carryingSuitcase": 0},
        ),
    ],
)
def test_labels_of_hand_built_people(traits, expected):
    labels = labels_of(**traits)
    assert {name: labels[name] for name in expected} == expected


def test_names_outside_peta_are_unknown():
    schema = type(SCHEMA).from_names(["personalMale", "ridingHorse"])
    assert pedestrian_labels(Pedestrian(), schema) == [1, -100]


@pytest.mark.parametrize(
    ("traits", "message"),
    [
        ({"view": "top"}, "`view` must be one of front"),
        ({"upper": "suit"}, "`sleeve` must be one of"),
        ({"view": "left", "left_hand": "folder"}, "`left_hand` must be 'nothing'"),
        ({"box": True, "right_hand": "folder"}, "`box` must be False when a hand"),
        ({"box": True, "view": "back"}, "`box` must be False in the back view"),
        ({"kerchief": True, "hat": "cap"}, "`kerchief` must be False under a hat"),
        ({"tie": True}, "`tie` must be False unless"),
    ],
)
def test_contradictory_traits_are_refused(traits, message):
    with pytest.raises(ValueError, match=message):
        Pedestrian(**traits)


# The population


def test_every_drawable_label_is_often_present_and_often_absent(population):
    for name, column in columns(population, "").items():
        if name in NEVER_KNOWN:
            assert set(column) == {-100}, name
        else:
            assert (column == 1).sum() >= 10, name
            assert (column == 0).sum() >= 10, name


@pytest.mark.parametrize("part", ["accessory", "carrying"])
def test_nothing_means_that_nothing_is_present(population, part):
    others = columns(population, part)
    nothing = others.pop(f"{part}Nothing")
    shown = np.array([column for name, column in others.items() if name not in NEVER_KNOWN])
    assert not (shown[:, nothing == 1] == 1).any()
    assert (shown[:, nothing == 0] == 1).any(axis=0).all()
    assert not (shown[:, nothing == -100] == 1).any()


@pytest.mark.parametrize(
    "group",
    [
        ["personalMale", "personalFemale"],
        ["upperBodyNoSleeve", "upperBodyShortSleeve", "upperBodyLongSleeve"],
        [f"footwear{kind}" for kind in ("LeatherShoes", "Shoes", "Sneaker", "Sandals", "Boots")],
    ],
)
def test_one_of_a_group_is_present(population, group):
    assert (population[0][:, [SCHEMA.index(name) for name in group]].sum(axis=1) == 1).all()


def test_skin_does_not_depend_on_any_label(population):
    skins = population[1]
    tones = np.digitize(skins, np.quantile(skins, [0.25, 0.5, 0.75]))
    for name, column in columns(population, "").items():
        known = column >= 0
        if name in NEVER_KNOWN:
            continue
        table = [
            [((column == value) & known & (tones == tone)).sum() for tone in range(4)]
            for value in (0, 1)
        ]
        # 100 tests: one false alarm in 100 such populations.
        assert chi2_contingency(table).pvalue > 1e-4, name


# What is drawn


def figure(view="front", seed=0, **traits):
    """Colours of the bare figure, without place and camera: (height, width, 4)."""
    person = Pedestrian(view=view, **traits)
    rng = np.random.default_rng(seed)
    body = build_body(person, Rendition.sample(rng), rng)
    canvas = Canvas((128, 256), ((64.0, 52.0), (190.0, 190.0)), 0.5, (0.0, 0.0))
    paint_figure(canvas, person, body)
    return np.asarray(canvas.albedo, np.int16)


VISIBLE = {
    "backpack": {"backpack": True, "bag_colour": "red"},
    "messenger bag": {"messenger_bag": True, "bag_colour": "red"},
    "muffler": {"muffler": True},
    "headphones": {"headphones": True},
    "hair band": {"hair_band": True, "hair_length": "long"},
    "kerchief": {"kerchief": True, "hat_colour": "blue"},
    "long hair": {"hair_length": "long"},
    "bald": {"hair_length": "bald"},
    "stripes": {"upper_pattern": "thin_stripes"},
    "jeans": {"lower": "jeans"},
    "shorts": {"lower": "shorts"},
    "boots": {"footwear": "boots", "footwear_colour": "brown"},
    **{hat: {"hat": hat, "hat_colour": "red"} for hat in ("cap", "beanie", "brimmed")},
    **{
        item: {"right_hand": item, "bag_colour": "red"}
        for item in ("plastic_bag", "handbag", "folder", "suitcase", "luggage", "umbrella")
    },
}


@pytest.mark.parametrize("view", ["front", "back", "left"])
@pytest.mark.parametrize("name", VISIBLE)
def test_a_trait_is_visible_in_every_view(name, view):
    traits = VISIBLE[name]
    without = {"hair_length": "long"} if name == "hair band" else {}
    for seed in range(3):
        change = np.abs(figure(view, seed, **traits) - figure(view, seed, **without)).max(axis=2)
        assert (change > 30).sum() >= 40, f"{name} from {view}, seed {seed}"


def test_only_the_face_shows_sunglasses():
    assert (figure("front", sunglasses=True) != figure("front")).any()
    assert (figure("back", sunglasses=True) == figure("back")).all()


@pytest.mark.parametrize("view", ["front", "back"])
def test_a_print_is_visible(view):
    change = np.abs(figure(view, logo=True) - figure(view)).max(axis=2)
    assert (change > 30).sum() >= 100


def red_middle(view, hat):
    """Mean column of a red hat."""
    person = Pedestrian(view=view, hat=hat, hat_colour="red", upper_colour="white")
    head = pixels(draw_pedestrian(person, np.random.default_rng(4)))[:60]
    redness = np.clip(head[..., 0] - head[..., 1:].max(axis=2) - 40, 0, None)
    return np.average(np.arange(128), weights=redness.sum(axis=0))


def test_side_views_look_to_their_sides():
    assert red_middle("right", "cap") > red_middle("right", "beanie") + 0.5
    assert red_middle("left", "cap") < red_middle("left", "beanie") - 0.5
    assert abs(127 - red_middle("left", "cap") - red_middle("right", "cap")) < 2


HUES = {
    "red": (340, 15),
    "orange": (12, 38),
    "yellow": (38, 64),
    "green": (85, 165),
    "blue": (200, 245),
    "purple": (255, 305),
    "pink": (315, 350),
    "brown": (10, 40),
}


def patch_colour(part, colour, seed):
    """Median of the torso's, or of a long skirt's, middle: hue in degrees, saturation, value."""
    traits = {f"{part}_colour": colour}
    traits |= {"lower": "long_skirt"} if part == "lower" else {"lower_colour": "black"}
    image = draw_pedestrian(Pedestrian(**traits), np.random.default_rng([9, seed]))
    rows = slice(84, 108) if part == "upper" else slice(160, 185)
    median = np.median(pixels(image)[rows, 58:70].reshape(-1, 3), axis=0) / 255
    hue, saturation, value = colorsys.rgb_to_hsv(*median)
    return hue * 360, saturation, value


def looks_like(colour, hue, saturation, value):
    if colour in HUES:
        low, high = HUES[colour]
        within = low <= hue <= high if low < high else (hue >= low or hue <= high)
        return within and saturation > 0.15 and (value < 0.75 or colour != "brown")
    if colour == "black":
        return value < 0.32
    if colour == "white":
        return value > 0.6 and saturation < 0.25
    return 0.25 < value < 0.75 and saturation < 0.2


@pytest.mark.parametrize("part", ["upper", "lower"])
@pytest.mark.parametrize("colour", synthetic_person.COLOURS)
def test_colour_names_are_seen_in_the_pixels(part, colour):
    seen = [patch_colour(part, colour, seed) for seed in range(10)]
    assert sum(looks_like(colour, *patch) for patch in seen) >= 9, seen


# Builder, command line, samples


def test_builder_gives_the_same_crops(tmp_path):
    sizes = {"train_size": 4, "validation_size": 2, "test_size": 3, "width": 32, "height": 64}
    builder = Synthetic(cache_dir=str(tmp_path), seed=2, **sizes)
    builder.download_and_prepare()
    data = builder.as_dataset()
    assert {split: len(rows) for split, rows in data.items()} == {
        "train": 4,
        "validation": 2,
        "test": 3,
    }
    for row, (image, labels, _) in zip(
        data["validation"], synthetic_crops(2, 2, SMALL, split="validation"), strict=True
    ):
        assert row["image"].tobytes() == image.tobytes()
        assert row["labels"] == labels
    rows = [row for split in ("train", "validation", "test") for row in data[split]]
    assert [row["person_id"] for row in rows] == list(range(9))
    assert {row["camera"] for row in rows} == {-1}
    assert len({row["image_name"] for row in rows}) == 9
    vectors = [tuple(row["labels"]) for row in rows]
    first_seen = list(dict.fromkeys(vectors))
    assert [row["category_id"] for row in rows] == [first_seen.index(v) for v in vectors]


def test_builder_options_do_not_share_a_cache(tmp_path):
    sizes = {"train_size": 1, "validation_size": 1, "width": 32, "height": 64}
    counts = []
    for test_size in (1, 2):
        builder = Synthetic(cache_dir=str(tmp_path), test_size=test_size, **sizes)
        builder.download_and_prepare()
        counts.append(len(builder.as_dataset(split="test")))
    assert counts == [1, 2]


def test_command_line_writes_crops_labels_and_sheet(tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    options = ["--count", "3", "--seed", "1", "--width", "32", "--height", "64"]
    synthetic.main(["--output", str(tmp_path / "out"), "--contact-sheet", str(sheet), *options])
    assert "3 crops" in capsys.readouterr().out
    table = (tmp_path / "out" / "labels.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    for row, (image, labels, person) in zip(rows, synthetic_crops(3, 1, SMALL), strict=True):
        assert (read(tmp_path / "out" / row["image_name"]) == pixels(image)).all()
        assert row["description"] == person.describe()
        present = {n for n, v in zip(SCHEMA.attributes, labels, strict=True) if v == 1}
        assert set(row["present"].split()) == present
    assert read(sheet).shape == (68, 360, 3)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--width", "4"], ["--split", "all"]])
def test_command_line_refuses_bad_options(tmp_path, wrong, capsys):
    with pytest.raises(SystemExit):
        synthetic.main(["--output", str(tmp_path / "out"), *wrong])
    assert wrong[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_teaches(capsys):
    with pytest.raises(SystemExit):
        synthetic.main(["--help"])
    text = capsys.readouterr().out
    assert "labels.csv" in text
    assert "Example" in text


def test_samples_are_those_of_the_command(tmp_path):
    people = ["--seed", str(SAMPLES_SEED), "--count", str(SAMPLES_COUNT)]
    synthetic.main(["--output", str(tmp_path), "--format", "jpg", *people])
    assert (tmp_path / "labels.csv").read_text() == (SAMPLES / "labels.csv").read_text()
    paths = sorted(SAMPLES.glob("*.jpg"))
    assert len(paths) == SAMPLES_COUNT
    for path in paths:
        assert path.stat().st_size < 20_000
        # Another JPEG encoder may round differently.
        assert np.abs(read(path) - read(tmp_path / path.name)).mean() < 3


def test_examples_in_docstrings_run():
    assert doctest.testmod(synthetic_person).attempted > 0
    assert doctest.testmod(synthetic_person).failed == 0
