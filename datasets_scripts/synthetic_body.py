"""Build, pose and colours of a drawn pedestrian: where the joints are, which RGB is worn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .synthetic_canvas import Colour, Point
from .synthetic_person import Pedestrian

Limb = tuple[Point, Point, Point]  # shoulder, elbow, hand or hip, knee, ankle

# Dyes of one colour name, light and dark; a cloth is a mixture of two of them.
CLOTH = {
    "black": ((24, 24, 27), (44, 43, 47), (18, 19, 24)),
    "blue": ((30, 62, 150), (58, 112, 196), (38, 56, 118), (92, 146, 214)),
    "brown": ((104, 68, 42), (134, 92, 58), (84, 54, 36), (156, 116, 80)),
    "green": ((34, 104, 58), (58, 132, 72), (44, 88, 50), (96, 160, 84)),
    "grey": ((118, 119, 123), (146, 147, 150), (96, 98, 103)),
    "orange": ((228, 112, 26), (240, 136, 48), (214, 98, 22)),
    "pink": ((236, 134, 172), (244, 166, 192), (228, 98, 148)),
    "purple": ((104, 48, 142), (132, 78, 168), (88, 44, 112)),
    "red": ((184, 28, 36), (208, 44, 44), (156, 24, 34)),
    "white": ((226, 226, 222), (240, 240, 238), (232, 228, 216)),
    "yellow": ((232, 202, 46), (242, 216, 84), (224, 188, 34)),
}
DENIM = {
    "blue": ((50, 76, 122), (84, 114, 158), (42, 58, 100)),
    "grey": ((112, 115, 120), (134, 136, 140)),
    "black": ((36, 37, 42), (48, 49, 54)),
}
HAIR = CLOTH | {
    "black": ((22, 20, 20), (34, 29, 27)),
    "brown": ((84, 54, 34), (106, 70, 44), (66, 42, 28)),
    "grey": ((128, 128, 131), (150, 149, 150)),
    "white": ((216, 215, 212), (228, 226, 224)),
    "yellow": ((206, 172, 96), (222, 190, 118), (190, 152, 78)),
    "red": ((138, 46, 30), (156, 58, 38)),
    "orange": ((204, 104, 44), (216, 122, 58)),
}
SKIN = (
    (246, 214, 192),
    (234, 190, 162),
    (218, 170, 136),
    (196, 144, 108),
    (168, 114, 80),
    (134, 88, 60),
    (102, 66, 46),
    (76, 50, 38),
)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` with `share` of `second`."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def shaded(colour: Colour, factor: float) -> Colour:
    """Lighter (above 1) or darker (below 1)."""
    return tuple(min(255, round(value * factor)) for value in colour)


def dye(rng: np.random.Generator, dyes: tuple[Colour, ...]) -> Colour:
    """A random mixture of two neighbouring dyes."""
    first = int(rng.integers(len(dyes)))
    return mix(dyes[first], dyes[(first + 1) % len(dyes)], float(rng.random()) * 0.5)


@dataclass(frozen=True)
class Rendition:
    """How a person happens to be seen; drawn without looking at the traits.

    skin is an RGB colour; build 0.88 (slim) to 1.2; stride and swing -1 to 1; light -1 (from the
    left) to 1; the others are small offsets or numbers from 0 to 1 that choose a variant.
    """

    skin_index: float
    skin: Colour
    build: float
    stride: float
    swing: float
    turn: float
    light: float
    spread: float
    variant: float
    phase: float
    legs: float
    lean: float
    camera: float
    hands: float

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Rendition:
        """Every value independent of the others."""
        index = float(rng.uniform(0, len(SKIN) - 1))
        lower = int(index)
        skin = mix(SKIN[lower], SKIN[lower + 1], index - lower)
        draw = [float(value) for value in rng.random(12)]
        return cls(
            skin_index=index,
            skin=skin,
            build=0.88 + 0.32 * draw[0] ** 1.5,
            stride=draw[1] * 2 - 1,
            swing=draw[2] * 2 - 1,
            turn=draw[3] * 2 - 1,
            light=math.copysign(0.4 + 0.6 * abs(draw[4] * 2 - 1), draw[4] - 0.5),
            spread=draw[5],
            variant=draw[6],
            phase=draw[7],
            legs=draw[8] * 2 - 1,
            lean=(draw[9] * 2 - 1) * 0.03,
            camera=0.14 * draw[10],
            hands=draw[11],
        )


@dataclass(frozen=True)
class Body:
    """Joints and widths in body units, colours in RGB."""

    head: Point
    radii: Point
    shoulder_y: float
    shoulder: float  # half widths
    waist: float
    hip: float
    waist_y: float
    hip_y: float
    arms: tuple[Limb, Limb]  # left, right; far, near in a side view
    legs: tuple[Limb, Limb]
    girth: float
    bulk: float
    skin: Colour
    colours: dict[str, Colour] = field(repr=False)
    rendition: Rendition = field(repr=False)

    def on_head(self, *points: Point) -> list[Point]:
        """Head units (centre 0, crown -1, chin 1, sides -1 and 1) to body units."""
        (x, y), (rx, ry) = self.head, self.radii
        return [(x + px * rx, y + py * ry) for px, py in points]


BULK = {"jacket": 0.012, "coat": 0.015, "hoodie": 0.008, "sweater": 0.005, "suit": 0.006}


def build_body(person: Pedestrian, rendition: Rendition, rng: np.random.Generator) -> Body:
    """Place the joints of a person and choose the colours worn."""
    female, child = person.gender == "female", person.age == "child"
    senior = person.age == "senior"
    girth = rendition.build * (1.07 if senior or child else 1)
    ry = 0.094 if child else 0.066
    shoulder_y = 2 * ry + (0.022 if senior else 0.036)
    hip_y = (0.55 if child else 0.5) - 0.012 * rendition.legs
    measures = {
        "shoulder_y": shoulder_y,
        "hip_y": hip_y,
        "waist_y": shoulder_y + 0.62 * (hip_y - shoulder_y),
        "shoulder": (0.094 if female else 0.113)
        * (0.6 + 0.4 * girth)
        * (1 - 0.1 * abs(rendition.turn)),
        "waist": (0.068 if female else 0.084) * girth * (1.12 if senior else 1),
        "hip": (0.092 if female else 0.083) * girth,
        "girth": girth,
        "bulk": BULK.get(person.upper, 0.0),
    }
    legs, arms = (_side_limbs if person.is_side else _front_limbs)(person, rendition, measures)
    lean = (0.045 if senior else 0.012) if person.is_side else 0.006 * rendition.turn
    return Body(
        head=(lean, ry + (0.006 if senior else 0)),
        radii=(ry * (0.82 if person.is_side else 0.74), ry),
        arms=arms,
        legs=legs,
        skin=rendition.skin,
        colours=_wardrobe(person, rng),
        rendition=rendition,
        **measures,
    )


def _wardrobe(person: Pedestrian, rng: np.random.Generator) -> dict[str, Colour]:
    lower = DENIM if person.lower == "jeans" else CLOTH
    colours = {
        "hair": dye(rng, HAIR[person.hair_colour]),
        "upper": dye(rng, CLOTH[person.upper_colour]),
        "upper_second": dye(rng, CLOTH[person.upper_second_colour]),
        "lower": dye(rng, lower.get(person.lower_colour, CLOTH[person.lower_colour])),
        "lower_second": dye(rng, CLOTH[person.lower_second_colour]),
        "footwear": dye(rng, CLOTH[person.footwear_colour]),
        "hat": dye(rng, CLOTH[person.hat_colour]),
        "muffler": dye(rng, CLOTH[person.muffler_colour]),
        "bag": dye(rng, CLOTH[person.bag_colour]),
    }
    if person.upper in ("suit",) and person.lower_colour == person.upper_colour:
        colours["lower"] = colours["upper"]
    return colours


def _front_limbs(person: Pedestrian, rendition: Rendition, measures: dict) -> tuple:
    hip_y, girth = measures["hip_y"], measures["girth"]
    stride = rendition.stride * (1 if person.view == "front" else -1)
    legs = []
    for side in (-1, 1):
        back = max(0.0, -side * stride)  # the leg that is further away stands higher
        hip = (side * max(0.03, measures["hip"] - 0.054 * girth), hip_y + 0.012)
        knee = (side * (0.043 * girth + 0.012 * rendition.spread), hip_y + 0.235 - 0.014 * back)
        ankle_x = side * (0.034 + 0.03 * rendition.spread) * (0.6 + 0.4 * girth)
        legs.append((hip, knee, (ankle_x, 0.952 - 0.05 * back)))
    arms = tuple(_front_arm(person, rendition, measures, side) for side in (-1, 1))
    return tuple(legs), arms


def _front_arm(person: Pedestrian, rendition: Rendition, measures: dict, side: int) -> Limb:
    top, reach = measures["shoulder_y"], measures["hip_y"] - measures["shoulder_y"]
    edge = measures["shoulder"] + measures["bulk"] * 0.6
    shoulder = (side * (edge - 0.027), top + 0.034)
    item = person.left_hand if side < 0 else person.right_hand
    if person.box:
        return (
            shoulder,
            (side * (edge + 0.016), top + 0.55 * reach),
            (side * 0.062, top + 0.6 * reach),
        )
    if item == "umbrella":
        return (
            shoulder,
            (side * (edge + 0.02), top + 0.5 * reach),
            (side * edge * 0.7, top + 0.24 * reach),
        )
    if item == "folder":
        return (
            shoulder,
            (side * (edge + 0.028), top + 0.5 * reach),
            (side * edge * 0.86, top + 0.86 * reach),
        )
    if item == "nothing" and rendition.hands + 0.1 * side < 0.2:
        pocket = (side * measures["hip"] * 1.02, measures["hip_y"] - 0.012)
        return shoulder, (side * (edge + 0.034), top + 0.56 * reach), pocket
    lift = 0.03 * max(0.0, side * rendition.swing)
    out = 0.012 + 0.02 * rendition.spread + (0.025 if item == "luggage" else 0)
    widest = max(edge, measures["hip"] + 0.012)
    elbow = (side * (edge + out), top + 0.5 * reach)
    return shoulder, elbow, (side * (widest + out * 0.9 - lift * 0.6), top + reach * 0.96 - lift)


def _side_limbs(person: Pedestrian, rendition: Rendition, measures: dict) -> tuple:
    hip_y, top = measures["hip_y"], measures["shoulder_y"]
    angle = 0.12 + 0.36 * abs(rendition.stride)
    if person.lower == "long_skirt":
        angle = min(angle, 0.2)
    forward, backward = _stepping_leg(hip_y, angle, 0.06), _stepping_leg(hip_y, -angle, 0.3 * angle)
    floor = max(forward[2][1], backward[2][1])
    near_leads = rendition.stride > 0
    legs = [
        tuple((x, y if index == 0 else y + 0.948 - floor) for index, (x, y) in enumerate(leg))
        for leg in ((backward, forward) if near_leads else (forward, backward))
    ]
    sign = -1 if near_leads else 1
    swing = (0.1 + 0.3 * abs(rendition.swing)) * sign
    stoop = 0.02 if person.age == "senior" else 0
    shoulder = (stoop, top + 0.03)
    near = _side_arm(person, shoulder, hip_y - top, swing)
    far = near if person.box else _swung_arm(shoulder, hip_y - top, -swing)
    return tuple(legs), (far, near)


def _stepping_leg(hip_y: float, angle: float, bend: float) -> Limb:
    thigh, calf = 0.235, 0.955 - hip_y - 0.235
    knee = (thigh * math.sin(angle), hip_y + thigh * math.cos(angle))
    lower = angle - bend
    return (
        (0.0, hip_y + 0.01),
        knee,
        (knee[0] + calf * math.sin(lower), knee[1] + calf * math.cos(lower)),
    )


def _swung_arm(shoulder: Point, reach: float, angle: float) -> Limb:
    x, y = shoulder
    elbow = (x + 0.47 * reach * math.sin(angle), y + 0.47 * reach * math.cos(angle))
    lower = angle + 0.25
    return (
        shoulder,
        elbow,
        (elbow[0] + 0.45 * reach * math.sin(lower), elbow[1] + 0.45 * reach * math.cos(lower)),
    )


def _side_arm(person: Pedestrian, shoulder: Point, reach: float, swing: float) -> Limb:
    x, y = shoulder
    if person.box:
        return shoulder, (x - 0.01, y + 0.5 * reach), (x + 0.12, y + 0.5 * reach)
    if person.right_hand == "umbrella":
        return shoulder, (x + 0.01, y + 0.46 * reach), (x + 0.09, y + 0.22 * reach)
    if person.right_hand == "folder":
        return shoulder, (x - 0.03, y + 0.46 * reach), (x + 0.055, y + 0.74 * reach)
    if person.right_hand == "luggage":
        return _swung_arm(shoulder, reach, -0.5)
    if person.right_hand != "nothing":
        # Before a messenger bag at the hip, so that neither hides the other.
        return _swung_arm(shoulder, reach, 0.42 if person.messenger_bag else 0.4 * swing)
    return _swung_arm(shoulder, reach, swing)


__all__ = ["Body", "Limb", "Rendition", "build_body", "mix", "shaded"]
