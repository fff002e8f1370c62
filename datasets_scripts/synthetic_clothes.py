"""Clothes of a drawn pedestrian: legs and footwear, torso, arms."""

from __future__ import annotations

from .synthetic_body import Body, Limb, mix, shaded
from .synthetic_canvas import NEUTRAL, Canvas, Colour, Point
from .synthetic_person import Pedestrian

# How far down the leg a garment reaches: 0 hip, 1 knee, 2 ankle; and its width there.
LEG_WEAR = {
    "trousers": (2.0, (0.1, 0.078, 0.066)),
    "jeans": (2.0, (0.098, 0.07, 0.056)),
    "suit_trousers": (2.02, (0.1, 0.082, 0.07)),
    "shorts": (0.9, (0.1, 0.102)),
    "hot_pants": (0.46, (0.098, 0.1)),
    "capri": (1.42, (0.098, 0.074, 0.068)),
}
SKIRT_HEM = {"short_skirt": 0.9, "long_skirt": 1.72}
HEM = {
    "tshirt": 0.045,
    "tank_top": 0.035,
    "shirt": 0.05,
    "sweater": 0.04,
    "hoodie": 0.05,
    "jacket": 0.05,
    "coat": 0.19,
    "suit": 0.075,
}
# Garments with a knitted band at hem and wrists, and how light it is beside the cloth.
RIBBED = {"sweater": 0.86, "hoodie": 0.86, "jacket": 0.62}
STOCKING: Colour = (44, 38, 42)


def along(limb: Limb, place: float) -> Point:
    """Point of a limb: 0 its root, 1 the middle joint, 2 the end."""
    start, end = (limb[0], limb[1]) if place <= 1 else (limb[1], limb[2])
    share = place if place <= 1 else place - 1
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share


def paint_legs(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Bare legs, footwear and the lower garment, the further leg first."""
    order = (0, 1)
    if not person.is_side and body.legs[0][2][1] > body.legs[1][2][1]:
        order = (1, 0)
    depths = (24, 0) if person.is_side else (8, 0)
    for index, depth in zip(order, depths, strict=True):
        _paint_bare_leg(canvas, person, body, body.legs[index], depth)
        if person.footwear == "boots":
            _paint_boot_shaft(canvas, body, body.legs[index], depth)
        paint_foot(canvas, person, body, body.legs[index], index, depth)
    with canvas.garment() as mask:
        if person.lower in SKIRT_HEM:
            _paint_skirt(canvas, person, body)
        else:
            for index, depth in zip(order, depths, strict=True):
                _paint_trouser_leg(canvas, person, body, body.legs[index], depth)
            _paint_seat(canvas, person, body)
    if person.lower_pattern != "plain":
        kind = "pinstripes" if person.lower_pattern == "thin_stripes" else person.lower_pattern
        canvas.pattern(mask, kind, body.colours["lower_second"], body.rendition.phase)
    if person.footwear == "boots" and person.lower != "long_skirt":
        for index, depth in zip(order, depths, strict=True):
            _paint_boot_shaft(canvas, body, body.legs[index], depth)
            paint_foot(canvas, person, body, body.legs[index], index, depth)


def _paint_bare_leg(canvas: Canvas, person: Pedestrian, body: Body, leg: Limb, depth: int) -> None:
    colour = STOCKING if person.stockings else body.skin
    girth = 0.5 + 0.5 * body.girth
    widths = [width * girth for width in (0.086, 0.058, 0.056, 0.034)]
    canvas.limb([leg[0], leg[1], along(leg, 1.35), leg[2]], widths, colour, depth)


def _paint_trouser_leg(
    canvas: Canvas, person: Pedestrian, body: Body, leg: Limb, depth: int
) -> None:
    reach, widths = LEG_WEAR[person.lower]
    colour = body.colours["lower"]
    widths = [width * (0.4 + 0.6 * body.girth) for width in widths]
    joints = [leg[0], leg[1], along(leg, reach)] if reach > 1 else [leg[0], along(leg, reach)]
    canvas.limb(joints, widths, colour, depth, cut=True)
    if person.lower == "jeans":
        _fade(canvas, leg, colour, depth)
        end = along(leg, 1.93)
        canvas.limb([end, leg[2]], [widths[2]] * 2, shaded(colour, 1.3), depth)
    elif person.lower in ("trousers", "suit_trousers"):
        canvas.crease(
            [along(leg, 0.4), along(leg, 1), along(leg, 1.95)], 0.006, NEUTRAL + 26 - depth
        )
    if reach > 1:
        _fold(canvas, along(leg, 0.95), widths[1], depth)
        _fold(canvas, along(leg, min(reach, 1.9) - 0.06), widths[2], depth)


def _fade(canvas: Canvas, leg: Limb, colour: Colour, depth: int) -> None:
    for width, lift in ((0.05, 1.12), (0.03, 1.26)):
        canvas.line(
            [along(leg, 0.25), along(leg, 0.95)], width, shaded(colour, lift), NEUTRAL - depth
        )
        canvas.line(
            [along(leg, 1.0), along(leg, 1.5)], width * 0.7, shaded(colour, lift), NEUTRAL - depth
        )


def _fold(canvas: Canvas, place: Point, width: float, depth: int) -> None:
    x, y = place
    bow = [(x - width * 0.4, y - 0.004), (x - width * 0.1, y + 0.008), (x + width * 0.2, y + 0.006)]
    canvas.crease(bow, 0.009, NEUTRAL - 16 - depth)


def _paint_seat(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour, top = body.colours["lower"], body.hip_y - 0.045
    hip, crotch = body.hip, body.hip_y + 0.05
    if person.is_side:
        depth = 0.062 * body.girth
        canvas.blob(
            [
                (-depth, top),
                (depth * 0.95, top),
                (depth, body.hip_y),
                (depth * 0.7, crotch),
                (-depth * 0.8, crotch),
                (-depth * 1.02, body.hip_y),
            ],
            colour,
        )
        return
    canvas.blob(
        [
            (-hip * 0.86, top),
            (hip * 0.86, top),
            (hip * 1.0, body.hip_y),
            (hip * 0.9, crotch),
            (0, crotch + 0.015),
            (-hip * 0.9, crotch),
            (-hip * 1.0, body.hip_y),
        ],
        colour,
    )
    canvas.crease([(0, body.hip_y - 0.01), (0, crotch + 0.02)], 0.007, NEUTRAL - 40)
    if person.view == "back":
        for side in (-1, 1):
            x = side * hip * 0.5
            pocket = [(x - 0.024, body.hip_y), (x + 0.024, body.hip_y), (x + 0.022, crotch - 0.01)]
            canvas.crease([*pocket, (x - 0.022, crotch - 0.01), pocket[0]], 0.004, NEUTRAL - 34)


def _paint_skirt(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour, top = body.colours["lower"], body.hip_y - 0.045
    long = person.lower == "long_skirt"
    places = [along(leg, SKIRT_HEM[person.lower]) for leg in body.legs]
    hem = max(y for _, y in places)
    flare = 0.045 if long else 0.04
    left = min(min(x for x, _ in places), -0.02) - flare
    right = max(max(x for x, _ in places), 0.02) + flare
    hip = 0.07 * body.girth if person.is_side else body.hip * 1.08
    left, right = min(left, -hip), max(right, hip)
    canvas.blob(
        [
            (-hip * 0.8, top),
            (hip * 0.8, top),
            (hip, body.hip_y),
            (right, hem - 0.03),
            (right * 0.98, hem),
            (0, hem + 0.008),
            (left * 0.98, hem),
            (left, hem - 0.03),
            (-hip, body.hip_y),
        ],
        colour,
    )
    for share in (0.22, 0.45, 0.7, 0.86):
        x = left + (right - left) * share
        canvas.crease([(x * 0.75, body.hip_y + 0.04), (x, hem - 0.004)], 0.008, NEUTRAL - 34)


def _paint_boot_shaft(canvas: Canvas, body: Body, leg: Limb, depth: int) -> None:
    canvas.limb([along(leg, 1.28), leg[2]], [0.068, 0.056], body.colours["footwear"], depth)
    top = along(leg, 1.27)
    canvas.crease([(top[0] - 0.03, top[1]), (top[0] + 0.03, top[1])], 0.008, NEUTRAL - 45)


def paint_foot(
    canvas: Canvas, person: Pedestrian, body: Body, leg: Limb, index: int, depth: int
) -> None:
    """One shoe; in a side view the toes point to the right."""
    colour = body.skin if person.footwear == "sandals" else body.colours["footwear"]
    x, y = leg[2]
    if person.is_side:
        outline, sole = _side_shoe(x, y, person.footwear)
    else:
        outline, sole = _front_shoe(x, y, -1 if index == 0 else 1, person.view == "back")
    canvas.flat(outline, colour, NEUTRAL - depth)
    _paint_sole(canvas, person, body, sole, depth)
    _paint_shoe_detail(canvas, person, body, (x, y), depth)


def _side_shoe(x: float, y: float, kind: str) -> tuple[list[Point], list[Point]]:
    toe = 0.092 if kind == "leather_shoes" else 0.082
    bottom = y + 0.046
    outline = [(x - 0.03, y - 0.008), (x + 0.026, y - 0.008), (x + 0.05, y + 0.014)]
    outline += [(x + toe, y + 0.034), (x + toe - 0.008, bottom), (x - 0.034, bottom)]
    return outline, [(x - 0.034, bottom), (x + toe - 0.004, bottom)]


def _front_shoe(x: float, y: float, side: int, away: bool) -> tuple[list[Point], list[Point]]:
    out = 0.004 if away else 0.012
    bottom = y + (0.034 if away else 0.05)
    outline = [(x - 0.022, y - 0.012), (x + 0.022, y - 0.012)]
    outline += [(x + side * out + 0.034, bottom - 0.016), (x + side * out + 0.026, bottom)]
    outline += [(x + side * out - 0.026, bottom), (x + side * out - 0.034, bottom - 0.016)]
    return outline, [(x + side * out - 0.03, bottom), (x + side * out + 0.03, bottom)]


def _paint_sole(
    canvas: Canvas, person: Pedestrian, body: Body, sole: list[Point], depth: int
) -> None:
    if person.footwear == "sneakers":
        white = (236, 236, 234) if min(body.colours["footwear"]) < 190 else (172, 172, 176)
        canvas.line(sole, 0.014, white, NEUTRAL - depth)
        return
    dark = (26, 23, 22) if person.footwear != "sandals" else shaded(body.colours["footwear"], 0.8)
    canvas.line(sole, 0.007, dark, NEUTRAL - depth)
    if person.footwear in ("leather_shoes", "boots") and person.is_side:
        (x, y), _ = sole
        canvas.polygon([(x, y), (x + 0.03, y), (x + 0.028, y + 0.014), (x, y + 0.014)], dark)


def _paint_shoe_detail(
    canvas: Canvas, person: Pedestrian, body: Body, ankle: Point, depth: int
) -> None:
    x, y = ankle
    toe = 0.052 if person.is_side else 0.0
    colour = body.colours["footwear"]
    if person.footwear == "sandals":
        for shift in (0.004, 0.03):
            ends = [(x + toe * shift * 20 - 0.03, y + shift), (x + toe + 0.03, y + shift + 0.012)]
            canvas.line(ends, 0.011, colour, NEUTRAL - depth)
    elif person.footwear == "sneakers":
        light = (240, 240, 240) if min(colour) < 190 else (120, 122, 130)
        for shift in (0.004, 0.018):
            canvas.line([(x + toe - 0.014, y + shift), (x + toe + 0.014, y + shift)], 0.006, light)
    elif person.footwear == "leather_shoes":
        spot = (x + toe * 1.3 + canvas.light * 0.008, y + 0.022)
        canvas.ellipse(spot, (0.012, 0.008), mix(colour, (255, 255, 255), 0.3), NEUTRAL + 24)


def paint_torso(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """The upper garment without its sleeves."""
    colour = body.colours["upper"]
    outline = _side_torso(person, body) if person.is_side else _front_torso(person, body)
    canvas.blob(outline, colour)
    hem = _hem(person, body)
    _paint_folds(canvas, body)
    if person.gender == "female":
        _paint_bust(canvas, person, body)
    if person.upper in RIBBED:
        wide = 0.066 * body.girth if person.is_side else body.hip * 0.98
        wide += body.bulk
        band = [(-wide, hem - 0.026), (wide, hem - 0.026), (wide * 0.97, hem), (-wide * 0.97, hem)]
        canvas.polygon(band, shaded(colour, RIBBED[person.upper]), NEUTRAL - 6)
        canvas.crease(band[:2], 0.006, NEUTRAL - 36)
    if is_quilted(person, body):
        _paint_quilting(canvas, body, hem)


def is_quilted(person: Pedestrian, body: Body) -> bool:
    """Whether a jacket is a padded one."""
    return (
        person.upper == "jacket" and body.rendition.phase > 0.5 and person.upper_pattern == "plain"
    )


def _paint_quilting(canvas: Canvas, body: Body, hem: float) -> None:
    y = body.shoulder_y + 0.03
    while y < hem - 0.03:
        half = body.shoulder * 0.95
        canvas.crease([(-half, y), (0, y + 0.006), (half, y)], 0.008, NEUTRAL - 24)
        canvas.crease([(-half, y + 0.02), (half, y + 0.02)], 0.012, NEUTRAL + 9)
        y += 0.042


def _paint_folds(canvas: Canvas, body: Body) -> None:
    """Soft pulls from the sides towards the waist, elsewhere on every person."""
    spread, phase = body.rendition.spread, body.rendition.phase
    for side, place in ((-1, phase), (1, 1 - spread), (1 if phase > 0.5 else -1, spread)):
        x, y = side * body.waist, body.waist_y - 0.07 + 0.13 * place
        pull = [(x * 0.92, y - 0.02), (x * 0.6, y - 0.004), (x * (0.2 + 0.3 * spread), y)]
        canvas.crease(pull, 0.012, NEUTRAL - 14)


def _paint_bust(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    y = body.shoulder_y + 0.105
    if person.view == "front" and person.age != "child":
        for side in (-1, 1):
            x = side * body.shoulder * 0.44
            arc = [(x - 0.026, y - 0.01), (x - 0.01, y + 0.004), (x + 0.01, y + 0.004)]
            canvas.crease([*arc, (x + 0.026, y - 0.01)], 0.012, NEUTRAL - 18)


def _hem(person: Pedestrian, body: Body) -> float:
    return body.hip_y + (-0.035 if person.tie and person.upper == "shirt" else HEM[person.upper])


def _front_torso(person: Pedestrian, body: Body) -> list[Point]:
    bulk, top = body.bulk, body.shoulder_y
    shoulder = body.shoulder + bulk * 0.6
    if person.upper == "tank_top":
        shoulder *= 0.84
    waist, hip, hem = body.waist + bulk, body.hip * 1.04 + bulk, _hem(person, body)
    chest = shoulder * 0.86 + (0.004 if person.gender == "female" else 0)
    below = hip * (1.12 if person.upper == "coat" else 1.0)
    half = [(0.034, top - 0.024), (shoulder * 0.66, top - 0.001), (shoulder, top + 0.04)]
    half += [(chest, top + 0.09), (waist, body.waist_y), (hip * 0.98, body.hip_y - 0.01)]
    half += [(below, hem - 0.022), (below * 0.97, hem), (below * 0.5, hem + 0.003)]
    return half + [(-x, y) for x, y in reversed(half)]


def _side_torso(person: Pedestrian, body: Body) -> list[Point]:
    bulk, top, girth = body.bulk, body.shoulder_y, body.girth
    female = person.gender == "female"
    stoop = 0.02 if person.age == "senior" else 0
    chest, belly = (0.074 if female else 0.066), (0.05 if female else 0.058)
    front = [(0.02 + stoop, top - 0.03), (0.045 + stoop, top + 0.01)]
    front += [(chest * girth + bulk + stoop, top + 0.085), (belly * girth + bulk, body.waist_y)]
    hem = _hem(person, body)
    flare = 1.3 if person.upper == "coat" else 1.0
    low = (0.062 * girth + bulk) * flare
    rear = [(-low * 1.06, hem), (-0.068 * girth - bulk, body.hip_y - 0.02)]
    rear += [
        (-0.048 * girth - bulk, body.waist_y - 0.02),
        (-0.064 * girth - bulk + stoop, top + 0.08),
    ]
    return [*front, (low, body.hip_y), (low, hem), *rear, (-0.035 + stoop, top - 0.012)]


def paint_arm(canvas: Canvas, person: Pedestrian, body: Body, arm: Limb, depth: int) -> None:
    """Bare arm and hand, then the sleeve with its pattern."""
    scale = 0.45 + 0.55 * body.girth
    bare = [width * scale for width in (0.048, 0.038, 0.03)]
    canvas.limb([*arm[:2], along(arm, 1.9)], bare, body.skin, depth)
    canvas.ellipse(arm[2], (0.019, 0.022), body.skin, NEUTRAL - depth, rim=14)
    if person.sleeve != "none":
        with canvas.garment() as mask:
            _paint_sleeve(canvas, person, body, arm, depth)
        paint_upper_pattern(canvas, person, body, mask)


def _paint_sleeve(canvas: Canvas, person: Pedestrian, body: Body, arm: Limb, depth: int) -> None:
    scale, thick = 0.45 + 0.55 * body.girth, body.bulk * 0.9 + 0.012
    widths = [width * scale + thick for width in (0.046, 0.036, 0.028)]
    colour = body.colours["upper"]
    if person.sleeve == "short":
        canvas.limb(
            [arm[0], along(arm, 0.62)], [widths[0], widths[0] * 1.04], colour, depth, cut=True
        )
        return
    canvas.limb([arm[0], arm[1], along(arm, 1.86)], widths, colour, depth, cut=True)
    _fold(canvas, arm[1], widths[1], depth)
    if person.upper in RIBBED:
        cuff = [along(arm, 1.7), along(arm, 1.87)]
        canvas.limb(cuff, [widths[2]] * 2, shaded(colour, RIBBED[person.upper]), depth, cut=True)
    if is_quilted(person, body):
        for place in (0.3, 0.7, 1.1, 1.45):
            x, y = along(arm, place)
            canvas.crease([(x - 0.026, y), (x + 0.026, y)], 0.009, NEUTRAL - 30 - depth)


def paint_upper_pattern(canvas: Canvas, person: Pedestrian, body: Body, mask: object) -> None:
    """Stripes or plaid over torso and sleeves."""
    if person.upper_pattern != "plain":
        canvas.pattern(
            mask, person.upper_pattern, body.colours["upper_second"], body.rendition.phase
        )


__all__ = ["HEM", "along", "paint_arm", "paint_legs", "paint_torso", "paint_upper_pattern"]
