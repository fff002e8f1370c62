"""The traits of a drawn pedestrian."""

from __future__ import annotations

from dataclasses import dataclass, fields

COLOURS = (
    "black",
    "blue",
    "brown",
    "green",
    "grey",
    "orange",
    "pink",
    "purple",
    "red",
    "white",
    "yellow",
)
HAND_ITEMS = ("nothing", "plastic_bag", "handbag", "folder", "suitcase", "luggage", "umbrella")
PATTERNS = ("plain", "plaid", "thin_stripes")

CHOICES = {
    "view": ("front", "back", "left", "right"),
    "gender": ("male", "female"),
    "age": ("child", "adult", "senior"),
    "hair_length": ("short", "long", "bald"),
    "hair_colour": COLOURS,
    "upper": ("tshirt", "tank_top", "shirt", "sweater", "hoodie", "jacket", "coat", "suit"),
    "sleeve": ("none", "short", "long"),
    "neck": ("round", "v"),
    "upper_colour": COLOURS,
    "upper_pattern": (*PATTERNS, "thick_stripes"),
    "upper_second_colour": COLOURS,
    "lower": (
        "trousers",
        "jeans",
        "suit_trousers",
        "shorts",
        "hot_pants",
        "capri",
        "short_skirt",
        "long_skirt",
    ),
    "lower_colour": COLOURS,
    "lower_pattern": PATTERNS,
    "lower_second_colour": COLOURS,
    "footwear": ("leather_shoes", "shoes", "sneakers", "sandals", "boots"),
    "footwear_colour": COLOURS,
    "hat": ("none", "cap", "beanie", "brimmed"),
    "hat_colour": COLOURS,
    "muffler_colour": COLOURS,
    "bag_colour": COLOURS,
    "left_hand": HAND_ITEMS,
    "right_hand": HAND_ITEMS,
}
SLEEVES_OF = {
    "tshirt": ("short",),
    "tank_top": ("none",),
    "shirt": ("short", "long"),
    "sweater": ("long",),
    "hoodie": ("long",),
    "jacket": ("long",),
    "coat": ("long",),
    "suit": ("long",),
}
BARE_LEGGED = ("shorts", "hot_pants", "short_skirt", "capri")


@dataclass(frozen=True)
class Pedestrian:
    """Every drawn trait of one person, the view included, because it decides what is seen.

    Left and right are sides of the picture. In a side view the right hand is the near one.

    Raises:
        ValueError: A trait has an unknown value, or two traits exclude each other.
    """

    view: str = "front"
    gender: str = "male"
    age: str = "adult"
    hair_length: str = "short"
    hair_colour: str = "brown"
    upper: str = "tshirt"
    sleeve: str = "short"
    neck: str = "round"
    upper_colour: str = "grey"
    upper_pattern: str = "plain"
    upper_second_colour: str = "white"
    logo: bool = False
    tie: bool = False
    lower: str = "trousers"
    lower_colour: str = "black"
    lower_pattern: str = "plain"
    lower_second_colour: str = "white"
    stockings: bool = False
    footwear: str = "shoes"
    footwear_colour: str = "black"
    hat: str = "none"
    hat_colour: str = "black"
    sunglasses: bool = False
    headphones: bool = False
    hair_band: bool = False
    kerchief: bool = False
    muffler: bool = False
    muffler_colour: str = "red"
    backpack: bool = False
    messenger_bag: bool = False
    bag_colour: str = "black"
    left_hand: str = "nothing"
    right_hand: str = "nothing"
    box: bool = False

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}."
                )
        for broken, message in self._contradictions():
            if broken:
                raise ValueError(message)

    def _contradictions(self) -> list[tuple[bool, str]]:
        hands = (self.left_hand, self.right_hand)
        return [
            (
                self.sleeve not in SLEEVES_OF[self.upper],
                f"`sleeve` must be one of {SLEEVES_OF[self.upper]} for a {self.upper}, "
                f"got {self.sleeve!r}.",
            ),
            (
                self.is_side and self.left_hand != "nothing",
                "`left_hand` must be 'nothing' in a side view, where the body hides that hand; "
                "use `right_hand`.",
            ),
            (
                self.box and hands != ("nothing", "nothing"),
                "`box` must be False when a hand carries something: it takes both hands.",
            ),
            (
                self.box and self.view == "back",
                "`box` must be False in the back view, where the body hides it.",
            ),
            (
                self.kerchief and self.hat != "none",
                "`kerchief` must be False under a hat, which hides it.",
            ),
            (
                self.tie and self.upper not in ("shirt", "suit"),
                "`tie` must be False unless `upper` is 'shirt' or 'suit'.",
            ),
        ]

    @property
    def is_side(self) -> bool:
        """Whether the person is seen in profile."""
        return self.view in ("left", "right")

    @property
    def hand_items(self) -> tuple[str, ...]:
        """What the hands carry, without the empty ones."""
        return tuple(item for item in (self.left_hand, self.right_hand) if item != "nothing")

    def describe(self) -> str:
        """One readable line.

        >>> Pedestrian().describe()
        'male adult, front view, short brown hair, grey tshirt, black trousers, black shoes'
        """
        hair = (
            "bald" if self.hair_length == "bald" else f"{self.hair_length} {self.hair_colour} hair"
        )
        parts = [f"{self.gender} {self.age}", f"{self.view} view", hair]
        parts.append(_garment(self.upper_pattern, self.upper_colour, self.upper))
        parts.append(_garment(self.lower_pattern, self.lower_colour, self.lower))
        parts.append(f"{self.footwear_colour} {self.footwear}")
        if self.hat != "none":
            parts.append(f"{self.hat_colour} hat")
        flags = [f.name for f in fields(self) if getattr(self, f.name) is True]
        return ", ".join([*parts, *flags, *self.hand_items]).replace("_", " ")


def _garment(pattern: str, colour: str, kind: str) -> str:
    return f"{colour} {kind}" if pattern == "plain" else f"{pattern} {colour} {kind}"


__all__ = ["BARE_LEGGED", "CHOICES", "COLOURS", "SLEEVES_OF", "Pedestrian"]
