"""Labels of a drawn pedestrian under the names of PETA.

A label is 0 only where the drawing shows that something is absent. What it cannot show is unknown:
the ages between 15 and 60, a baby buggy and a shopping trolley (never drawn), sunglasses seen from
behind, bare or stockinged legs under trousers, and the like.
"""

from __future__ import annotations

from ..attributes_clear import AttributeSchema
from .person_dataset import UNKNOWN_LABEL
from .synthetic_person import COLOURS, Pedestrian

CASUAL_UPPER = ("tshirt", "tank_top", "sweater", "hoodie", "jacket")
CASUAL_LOWER = ("jeans", "shorts", "hot_pants", "capri")


def pedestrian_labels(pedestrian: Pedestrian, schema: AttributeSchema) -> list[int]:
    """Labels in the order of `schema`.

    Args:
        schema: Its attributes are named as in PETA; a name that is not known here is unknown.

    Returns:
        1 drawn, 0 seen to be absent, -100 not shown; one per attribute.
    """
    known = {
        **_person(pedestrian),
        **_hair(pedestrian),
        **_upper(pedestrian),
        **_lower(pedestrian),
        **_footwear(pedestrian),
        **_accessories(pedestrian),
        **_carried(pedestrian),
    }
    return [_as_label(known.get(name)) for name in schema.attributes]


def _as_label(shown: bool | None) -> int:
    return UNKNOWN_LABEL if shown is None else int(shown)


def _one_of(options: dict[str, str], value: str) -> dict[str, bool]:
    """Attribute -> whether its value is the drawn one."""
    return {name: value == option for name, option in options.items()}


def _colours(part: str, worn: set[str]) -> dict[str, bool]:
    return {part + colour.capitalize(): colour in worn for colour in COLOURS}


def _hide(labels: dict[str, bool | None]) -> dict[str, None]:
    return dict.fromkeys(labels)


def _person(person: Pedestrian) -> dict[str, bool | None]:
    may_be_old = person.age == "adult" and person.hair_colour in ("grey", "white")
    return {
        "personalMale": person.gender == "male",
        "personalFemale": person.gender == "female",
        "personalLess15": person.age == "child",
        "personalLarger60": None if may_be_old else person.age == "senior",
    }


def _hair(person: Pedestrian) -> dict[str, bool | None]:
    lengths = {"hairShort": "short", "hairLong": "long", "hairBald": "bald"}
    labels: dict[str, bool | None] = _one_of(lengths, person.hair_length)
    colours = _colours("hair", {person.hair_colour})
    bald = person.hair_length == "bald"
    if person.kerchief or (bald and person.hat != "none"):
        return _hide(labels | colours)
    if bald:
        return labels | {"hairShort": None} | _hide(colours)
    return labels | colours


def _upper(person: Pedestrian) -> dict[str, bool | None]:
    upper, sleeve = person.upper, person.sleeve
    worn = {person.upper_colour}
    if person.upper_pattern != "plain":
        worn.add(person.upper_second_colour)
    # A print is on chest or back; an arm or a backpack covers it.
    print_hidden = person.is_side or (person.backpack and person.view == "back")
    return {
        **_upper_style(person),
        "upperBodyTshirt": upper == "tshirt",
        "upperBodyJacket": upper == "jacket",
        "upperBodySuit": upper == "suit",
        "upperBodySweater": None if upper == "hoodie" else upper == "sweater",
        "upperBodyOther": {"coat": True, "shirt": None, "hoodie": None, "tank_top": None}.get(
            upper, False
        ),
        "upperBodyVNeck": _v_neck(person),
        "upperBodyNoSleeve": sleeve == "none",
        "upperBodyShortSleeve": sleeve == "short",
        "upperBodyLongSleeve": sleeve == "long",
        "upperBodyPlaid": person.upper_pattern == "plaid",
        "upperBodyThinStripes": person.upper_pattern == "thin_stripes",
        "upperBodyThickStripes": person.upper_pattern == "thick_stripes",
        "upperBodyLogo": None if print_hidden else person.logo,
        **_colours("upperBody", worn),
    }


def _v_neck(person: Pedestrian) -> bool | None:
    unclear = person.upper in ("suit", "jacket", "coat")
    if unclear or person.view != "front" or person.muffler:
        return None
    return person.neck == "v" and person.upper in ("tshirt", "sweater")


def _upper_style(person: Pedestrian) -> dict[str, bool | None]:
    formal: bool | None = None
    if person.upper == "suit" or (person.tie and person.view == "front"):
        formal = True
    elif person.upper in CASUAL_UPPER or (
        person.upper == "shirt" and (person.sleeve == "short" or person.upper_pattern == "plaid")
    ):
        formal = False
    return {
        "upperBodyFormal": formal,
        "upperBodyCasual": None if formal is None else not formal,
    }


LOWER_NAMES = {
    "lowerBodyTrousers": "trousers",
    "lowerBodyJeans": "jeans",
    "lowerBodySuits": "suit_trousers",
    "lowerBodyShorts": "shorts",
    "lowerBodyHotPants": "hot_pants",
    "lowerBodyCapri": "capri",
    "lowerBodyShortSkirt": "short_skirt",
    "lowerBodyLongSkirt": "long_skirt",
}


def _lower(person: Pedestrian) -> dict[str, bool | None]:
    worn = {person.lower_colour}
    if person.lower_pattern != "plain":
        worn.add(person.lower_second_colour)
    labels = {
        **_lower_style(person),
        **_one_of(LOWER_NAMES, person.lower),
        "lowerBodyPlaid": person.lower_pattern == "plaid",
        "lowerBodyThinStripes": person.lower_pattern == "thin_stripes",
        **_colours("lowerBody", worn),
    }
    if person.upper in ("coat", "suit") and person.lower == "hot_pants":
        return _hide(labels)
    return labels


def _lower_style(person: Pedestrian) -> dict[str, bool | None]:
    formal: bool | None = None
    if person.lower == "suit_trousers" or (person.upper == "suit" and "skirt" in person.lower):
        formal = True
    elif person.lower in CASUAL_LOWER or _upper_style(person)["upperBodyCasual"]:
        formal = False
    return {
        "lowerBodyFormal": formal,
        "lowerBodyCasual": None if formal is None else not formal,
    }


def _footwear(person: Pedestrian) -> dict[str, bool | None]:
    kinds = {
        "footwearLeatherShoes": "leather_shoes",
        "footwearShoes": "shoes",
        "footwearSneaker": "sneakers",
        "footwearSandals": "sandals",
        "footwearBoots": "boots",
    }
    legs_seen = person.lower in ("shorts", "hot_pants", "capri", "short_skirt")
    return {
        **_one_of(kinds, person.footwear),
        "footwearStocking": person.stockings if legs_seen else None,
        **_colours("footwear", {person.footwear_colour}),
    }


def _accessories(person: Pedestrian) -> dict[str, bool | None]:
    covered = person.kerchief or person.hat != "none"
    labels: dict[str, bool | None] = {
        "accessoryHat": person.hat != "none",
        "accessorySunglasses": None if person.view == "back" else person.sunglasses,
        "accessoryMuffler": person.muffler,
        "accessoryHeadphone": person.headphones,
        "accessoryHairBand": None if covered else person.hair_band,
        "accessoryKerchief": person.kerchief,
    }
    return labels | {"accessoryNothing": _nothing(labels)}


def _carried(person: Pedestrian) -> dict[str, bool | None]:
    items = person.hand_items
    labels: dict[str, bool | None] = {
        "carryingBackpack": person.backpack,
        "carryingMessengerBag": person.messenger_bag,
        "carryingPlasticBags": "plastic_bag" in items,
        "carryingOther": "handbag" in items or person.box,
        "carryingFolder": "folder" in items,
        "carryingSuitcase": "suitcase" in items,
        "carryingLuggageCase": "luggage" in items,
        "carryingUmbrella": "umbrella" in items,
    }
    return labels | {"carryingNothing": _nothing(labels)}


def _nothing(labels: dict[str, bool | None]) -> bool | None:
    """Whether all are absent; unknown while one that may be there cannot be seen."""
    if any(labels.values()):
        return False
    return None if None in labels.values() else True


__all__ = ["pedestrian_labels"]
