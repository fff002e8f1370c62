"""How often the traits of a drawn pedestrian occur, and which go together."""

from __future__ import annotations

import numpy as np

from .synthetic_person import BARE_LEGGED, COLOURS, SLEEVES_OF, Pedestrian

UPPER_COLOURS = dict(zip(COLOURS, (30, 13, 7, 7, 14, 4, 5, 5, 8, 14, 4), strict=True))
LOWER_COLOURS = dict(zip(COLOURS, (34, 10, 13, 5, 20, 2, 3, 3, 4, 11, 2), strict=True))
BRIGHT_COLOURS = dict(zip(COLOURS, (12, 12, 8, 8, 8, 7, 8, 7, 10, 12, 7), strict=True))
SHOE_COLOURS = dict(zip(COLOURS, (20, 6, 12, 3, 12, 3, 4, 3, 7, 25, 3), strict=True))
LEATHER_COLOURS = {"black": 66, "brown": 27, "grey": 4, "red": 3}
SUIT_COLOURS = {"black": 45, "grey": 30, "blue": 15, "brown": 10}
NATURAL_HAIR = {"black": 42, "brown": 31, "yellow": 13, "red": 4, "orange": 2.5, "grey": 1.5}
DYED_HAIR = {"blue": 1.3, "green": 1.3, "pink": 1.4, "purple": 1.3, "white": 0.7}
SENIOR_HAIR = {"grey": 48, "white": 47, "black": 3, "brown": 2}

UPPER_TYPES = {
    "male": {
        "tshirt": 22,
        "tank_top": 3,
        "shirt": 15,
        "sweater": 12,
        "hoodie": 9,
        "jacket": 16,
        "coat": 9,
        "suit": 14,
    },
    "female": {
        "tshirt": 20,
        "tank_top": 9,
        "shirt": 11,
        "sweater": 16,
        "hoodie": 7,
        "jacket": 15,
        "coat": 17,
        "suit": 5,
    },
}
LOWER_TYPES = {
    "male": {"trousers": 42, "jeans": 38, "suit_trousers": 4, "shorts": 14, "capri": 2},
    "female": {
        "trousers": 26,
        "jeans": 28,
        "shorts": 5,
        "hot_pants": 8,
        "capri": 6,
        "short_skirt": 17,
        "long_skirt": 10,
    },
}


def _pick(rng: np.random.Generator, weights: dict) -> object:
    total = sum(weights.values())
    mark = rng.random() * total
    for value, weight in weights.items():
        mark -= weight
        if mark < 0:
            return value
    return value


def _chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _sample_upper(rng: np.random.Generator, traits: dict) -> dict:
    weights = dict(UPPER_TYPES[traits["gender"]])
    if traits["age"] == "child":
        weights |= {"suit": 0, "coat": 4}
    upper = _pick(rng, weights)
    sleeve = _pick(rng, dict.fromkeys(SLEEVES_OF[upper], 1))
    if upper == "suit":
        colour = _pick(rng, SUIT_COLOURS)
        return {"upper": upper, "sleeve": sleeve, "upper_colour": colour, "tie": _chance(rng, 0.7)}
    tie = upper == "shirt" and sleeve == "long" and _chance(rng, 0.25)
    colour = _pick(rng, UPPER_COLOURS)
    pattern = "plain" if tie else _sample_upper_pattern(rng, upper)
    return {
        "upper": upper,
        "sleeve": sleeve,
        "neck": "v" if upper in ("tshirt", "sweater") and _chance(rng, 0.3) else "round",
        "upper_colour": colour,
        "upper_pattern": pattern,
        "upper_second_colour": _contrasting(rng, colour),
        "logo": pattern == "plain"
        and upper in ("tshirt", "hoodie", "sweater")
        and _chance(rng, 0.35),
        "tie": tie,
    }


def _sample_upper_pattern(rng: np.random.Generator, upper: str) -> str:
    weights = {
        "shirt": {"plain": 45, "plaid": 38, "thin_stripes": 17},
        "tshirt": {"plain": 70, "thin_stripes": 15, "thick_stripes": 15},
        "sweater": {"plain": 60, "thin_stripes": 15, "thick_stripes": 25},
        "tank_top": {"plain": 85, "thin_stripes": 15},
        "jacket": {"plain": 92, "plaid": 8},
    }
    return _pick(rng, weights.get(upper, {"plain": 1}))


# Pairs that would not be told apart in a small crop.
ALIKE = (
    {"black", "brown"},
    {"black", "blue"},
    {"black", "purple"},
    {"black", "green"},
    {"grey", "brown"},
    {"grey", "green"},
    {"grey", "blue"},
    {"grey", "pink"},
    {"grey", "purple"},
    {"red", "orange"},
    {"red", "brown"},
    {"red", "pink"},
    {"red", "purple"},
    {"pink", "purple"},
    {"pink", "orange"},
    {"blue", "purple"},
    {"blue", "green"},
    {"orange", "yellow"},
    {"orange", "brown"},
    {"brown", "green"},
    {"brown", "purple"},
    {"white", "yellow"},
    {"white", "pink"},
)


def _contrasting(rng: np.random.Generator, colour: str) -> str:
    weights = {
        other: {"black": 5, "white": 3}.get(other, 1)
        for other in COLOURS
        if other != colour and {other, colour} not in ALIKE
    }
    return _pick(rng, weights)


def _sample_lower(rng: np.random.Generator, traits: dict) -> dict:
    upper = traits["upper"]
    if upper == "suit":
        skirt = traits["gender"] == "female" and _chance(rng, 0.3)
        lower = "short_skirt" if skirt else "suit_trousers"
        return {"lower": lower, "lower_colour": traits["upper_colour"], **_stockings(rng, lower)}
    if traits["tie"]:
        return {"lower": "suit_trousers", "lower_colour": _pick(rng, SUIT_COLOURS)}
    weights = dict(LOWER_TYPES[traits["gender"]])
    if upper in ("coat", "jacket"):
        weights |= {"shorts": 2, "hot_pants": min(3, weights.get("hot_pants", 0))}
    lower = _pick(rng, weights)
    colour = _pick(rng, _lower_colours(lower))
    pattern = _sample_lower_pattern(rng, lower)
    return {
        "lower": lower,
        "lower_colour": colour,
        "lower_pattern": pattern,
        "lower_second_colour": _contrasting(rng, colour),
        **_stockings(rng, lower),
    }


def _lower_colours(lower: str) -> dict:
    if lower == "jeans":
        return {"blue": 82, "grey": 8, "black": 10}
    if lower == "suit_trousers":
        return SUIT_COLOURS
    if lower in ("short_skirt", "long_skirt", "hot_pants"):
        return BRIGHT_COLOURS
    return LOWER_COLOURS


def _sample_lower_pattern(rng: np.random.Generator, lower: str) -> str:
    if lower in ("shorts", "short_skirt", "long_skirt"):
        return _pick(rng, {"plain": 76, "plaid": 17, "thin_stripes": 7})
    if lower == "trousers":
        return _pick(rng, {"plain": 93, "plaid": 3, "thin_stripes": 4})
    return "plain"


def _stockings(rng: np.random.Generator, lower: str) -> dict:
    chance = 0.45 if lower in ("short_skirt", "hot_pants") else 0
    return {"stockings": _chance(rng, chance)}


def _sample_footwear(rng: np.random.Generator, traits: dict) -> dict:
    female = traits["gender"] == "female"
    if traits["lower"] == "suit_trousers" or traits["upper"] == "suit":
        weights = {"leather_shoes": 95, "shoes": 5}
    elif traits["stockings"]:
        weights = {"boots": 45, "shoes": 40, "leather_shoes": 15}
    elif traits["lower"] in (*BARE_LEGGED, "long_skirt"):
        weights = {"sandals": 32, "sneakers": 32, "shoes": 18, "boots": 14 if female else 2}
    else:
        weights = {"leather_shoes": 25, "shoes": 27, "sneakers": 36, "sandals": 4, "boots": 8}
    kind = _pick(rng, weights)
    leathery = kind in ("leather_shoes", "boots")
    return {
        "footwear": kind,
        "footwear_colour": _pick(rng, LEATHER_COLOURS if leathery else SHOE_COLOURS),
    }


def _sample_head(rng: np.random.Generator, traits: dict) -> dict:
    female, age = traits["gender"] == "female", traits["age"]
    natural = SENIOR_HAIR if age == "senior" else NATURAL_HAIR | DYED_HAIR
    bald = {"child": 0, "adult": 6, "senior": 20}[age]
    long_hair = 62 if female else 7
    lengths = {"short": 92 - long_hair, "long": long_hair, "bald": 0 if female else bald}
    length = _pick(rng, lengths)
    formal = traits["upper"] == "suit"
    cover = _pick(rng, {"bare": 72, "hat": 8 if formal else 22, "kerchief": 6 if female else 0})
    hat = "none"
    if cover == "hat":
        hat = _pick(rng, {"cap": 45, "beanie": 33, "brimmed": 22})
        length = "short" if length == "bald" else length
    warm = traits["upper"] in ("coat", "jacket", "sweater", "hoodie")
    return {
        "hair_length": length,
        "hair_colour": _pick(rng, natural),
        "hat": hat,
        "hat_colour": _pick(rng, BRIGHT_COLOURS),
        "kerchief": cover == "kerchief",
        "sunglasses": traits["view"] != "back" and _chance(rng, 0.12),
        "headphones": cover == "bare" and age != "senior" and _chance(rng, 0.05),
        "hair_band": cover == "bare" and female and length == "long" and _chance(rng, 0.2),
        "muffler": not traits["tie"] and _chance(rng, 0.28 if warm else 0.02),
        "muffler_colour": _contrasting(rng, traits["upper_colour"]),
    }


def _sample_luggage(rng: np.random.Generator, traits: dict) -> dict:
    formal, view = traits["upper"] == "suit", traits["view"]
    back = _pick(rng, {"none": 60, "backpack": 6 if formal else 22, "messenger": 20})
    empty = {"nothing": 64 if back == "none" else 74}
    items = {"plastic_bag": 9, "handbag": 1, "folder": 3, "suitcase": 2, "luggage": 3}
    items["umbrella"] = 2 if traits["hat"] == "none" else 0
    if traits["gender"] == "female":
        items["handbag"] = 10
    if formal:
        items |= {"suitcase": 16, "folder": 7, "plastic_bag": 3}
    held = _pick(rng, empty | items | {"box": 0 if view == "back" else 5})
    side = "right_hand" if view in ("left", "right") or _chance(rng, 0.5) else "left_hand"
    return {
        "backpack": back == "backpack",
        "messenger_bag": back == "messenger",
        "logo": traits.get("logo", False)
        and view not in ("left", "right")
        and not (back == "backpack" and view == "back"),
        "bag_colour": _contrasting(rng, traits["upper_colour"]),
        "box": held == "box",
        side: held if held != "box" else "nothing",
    }


def sample_pedestrian(rng: np.random.Generator) -> Pedestrian:
    """Draw traits that go together, rare ones often enough to be learned.

    Args:
        rng: Advanced by a number of draws that depends on the traits.

    Returns:
        A pedestrian; skin, build and pose are no traits and are drawn with the picture.
    """
    traits = {"view": _pick(rng, {"front": 36, "back": 32, "left": 16, "right": 16})}
    traits["gender"] = _pick(rng, {"male": 50, "female": 50})
    traits["age"] = _pick(rng, {"adult": 82, "senior": 11, "child": 7})
    traits |= _sample_upper(rng, traits)
    traits |= _sample_lower(rng, traits)
    traits |= _sample_footwear(rng, traits)
    traits |= _sample_head(rng, traits)
    traits |= _sample_luggage(rng, traits)
    return Pedestrian(**traits)


__all__ = ["sample_pedestrian"]
