"""What a drawn pedestrian carries or winds round the neck."""

from __future__ import annotations

from .synthetic_body import Body, mix, shaded
from .synthetic_canvas import NEUTRAL, Canvas, Colour, Point
from .synthetic_person import Pedestrian

LEATHER: Colour = (78, 48, 32)


def paint_muffler(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """A scarf: a roll round the neck and one or two hanging ends."""
    colour, top = body.colours["muffler"], body.shoulder_y
    x = body.head[0] * 0.6
    wide = 0.052 if person.is_side else 0.064
    if person.view != "back":
        ends = ((0.016, 0.16), (-0.022, 0.12)) if person.view == "front" else ((0.045, 0.15),)
        for offset, drop in ends:
            tail = [
                (x + offset, top),
                (x + offset * 1.5, top + drop * 0.5),
                (x + offset * 1.7, top + drop),
            ]
            canvas.limb(tail, [0.034, 0.036, 0.038], colour)
            for share in (0.3, 0.85):
                y = top + drop * share
                canvas.crease(
                    [(x + offset * 1.5 - 0.016, y), (x + offset * 1.5 + 0.016, y)],
                    0.007,
                    NEUTRAL - 34,
                )
    roll = [
        (x - wide, top - 0.034),
        (x, top - 0.026),
        (x + wide, top - 0.034),
        (x + wide * 1.05, top + 0.006),
    ]
    canvas.blob([*roll, (x, top + 0.026), (x - wide * 1.05, top + 0.006)], colour)
    canvas.crease(
        [(x - wide * 0.9, top - 0.012), (x, top + 0.004), (x + wide * 0.9, top - 0.014)],
        0.007,
        NEUTRAL - 38,
    )


def paint_backpack_behind(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """The part of a backpack that the body does not hide: front and side views."""
    if not person.backpack or person.view == "back":
        return
    colour, top = body.colours["bag"], body.shoulder_y
    low = body.waist_y + 0.05
    if person.view == "front":
        half = body.shoulder + 0.012
        canvas.blob(
            [
                (-half * 0.6, top - 0.04),
                (half * 0.6, top - 0.04),
                (half * 1.04, top + 0.04),
                (half * 1.1, low),
                (-half * 1.1, low),
                (-half * 1.04, top + 0.04),
            ],
            shaded(colour, 0.75),
        )
        return
    rear = -0.045 * body.girth
    bag = [(rear, top + 0.005), (rear - 0.06, top + 0.0), (rear - 0.125, top + 0.05)]
    bag += [(rear - 0.14, top + 0.16), (rear - 0.12, low), (rear, low + 0.005)]
    canvas.blob(bag, colour)
    pocket = [
        (rear - 0.09, top + 0.15),
        (rear - 0.155, top + 0.16),
        (rear - 0.145, low - 0.005),
        (rear - 0.08, low - 0.01),
    ]
    canvas.blob(pocket, shaded(colour, 0.82))
    canvas.crease([(rear - 0.02, top + 0.07), (rear - 0.125, top + 0.07)], 0.006, NEUTRAL - 46)


def paint_backpack(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Straps from the front, one strap from the side, the whole bag from behind."""
    if not person.backpack:
        return
    colour, top = body.colours["bag"], body.shoulder_y
    if person.view == "back":
        _backpack_from_behind(canvas, body, colour)
        return
    if person.is_side:
        strap = [
            (-0.05, top - 0.008),
            (0.03, top + 0.03),
            (0.04, top + 0.1),
            (-0.02, body.waist_y),
            (-0.06, body.waist_y + 0.03),
        ]
        canvas.line(strap, 0.024, shaded(colour, 0.9))
        canvas.crease(strap, 0.005, NEUTRAL + 24)
        return
    for side in (-1, 1):
        x = side * body.shoulder
        strap = [
            (x * 0.52, top - 0.016),
            (x * 0.64, top + 0.06),
            (x * 0.68, top + 0.13),
            (x * 0.92, body.waist_y),
        ]
        canvas.line(strap, 0.027, shaded(colour, 0.92))
        canvas.crease(strap, 0.006, NEUTRAL + 22)
    y = top + 0.1
    canvas.line([(-body.shoulder * 0.66, y), (body.shoulder * 0.66, y)], 0.01, shaded(colour, 0.8))


def _backpack_from_behind(canvas: Canvas, body: Body, colour: Colour) -> None:
    top, low = body.shoulder_y - 0.005, body.waist_y + 0.06
    half = body.shoulder * 0.8
    for side in (-1, 1):
        strap = [(side * half * 0.5, top - 0.012), (side * half * 0.95, top + 0.05)]
        canvas.line(strap, 0.026, shaded(colour, 0.7))
    canvas.blob(
        [
            (-half * 0.55, top),
            (half * 0.55, top),
            (half, top + 0.07),
            (half * 1.06, low - 0.03),
            (half * 0.8, low),
            (-half * 0.8, low),
            (-half * 1.06, low - 0.03),
            (-half, top + 0.07),
        ],
        colour,
    )
    pocket = [
        (-half * 0.7, top + 0.15),
        (half * 0.7, top + 0.15),
        (half * 0.74, low - 0.015),
        (-half * 0.74, low - 0.015),
    ]
    canvas.blob(pocket, shaded(colour, 0.84))
    zip_colour = mix(colour, (200, 200, 200), 0.45)
    canvas.line(
        [(-half * 0.72, top + 0.085), (0, top + 0.055), (half * 0.72, top + 0.085)],
        0.006,
        zip_colour,
    )
    canvas.line([(-half * 0.55, top + 0.165), (half * 0.55, top + 0.165)], 0.006, zip_colour)
    canvas.line(
        [(-0.016, top - 0.002), (-0.012, top - 0.022), (0.012, top - 0.022), (0.016, top - 0.002)],
        0.007,
        shaded(colour, 0.6),
    )


def paint_messenger_bag(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """A bag at the hip on a strap across the chest."""
    if not person.messenger_bag:
        return
    colour, top = body.colours["bag"], body.shoulder_y
    y = body.hip_y - 0.015
    if person.is_side:
        x = -0.075 if person.hand_items else -0.02
        strap = [(0.012, top - 0.016), (0.02, top + 0.12), (x, y - 0.03)]
    else:
        side = 1 if body.rendition.variant > 0.5 else -1
        if person.hand_items:  # on the side of the free hand
            side = 1 if person.right_hand == "nothing" else -1
        strap = [
            (-side * body.shoulder * 0.5, top - 0.012),
            (0, top + 0.12),
            (side * body.hip * 0.95, y - 0.02),
        ]
        x = side * body.hip * 1.06
    canvas.line(strap, 0.022, shaded(colour, 0.72))
    canvas.crease(strap, 0.005, NEUTRAL + 24)
    bag = [
        (x - 0.066, y - 0.035),
        (x + 0.066, y - 0.035),
        (x + 0.07, y + 0.085),
        (x - 0.07, y + 0.085),
    ]
    canvas.blob(bag, colour)
    flap = [
        (x - 0.068, y - 0.04),
        (x + 0.068, y - 0.04),
        (x + 0.066, y + 0.025),
        (x - 0.066, y + 0.025),
    ]
    canvas.polygon(flap, shaded(colour, 0.84), NEUTRAL - 4)
    canvas.crease([flap[3], flap[2]], 0.007, NEUTRAL - 50)
    canvas.ellipse((x, y + 0.026), (0.008, 0.007), mix(colour, (230, 220, 180), 0.7))


def paint_hand_items(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """What hangs from or is held in the hands."""
    for item, arm, side in zip(
        (person.left_hand, person.right_hand), body.arms, (-1, 1), strict=True
    ):
        painter = ITEM_PAINTERS.get(item)
        if painter is not None:
            painter(canvas, body, arm[2], side)
    if person.box:
        _box(canvas, person, body)


def _plastic_bag(canvas: Canvas, body: Body, hand: Point, side: int) -> None:
    x, y = hand
    tints = ((236, 236, 234), (214, 226, 240), (240, 214, 96), (150, 200, 150), (226, 226, 222))
    colour = tints[int(body.rendition.phase * len(tints))]
    for shift in (-1, 1):
        canvas.line(
            [(x + shift * 0.004, y), (x + shift * 0.03, y + 0.055)], 0.012, shaded(colour, 0.94)
        )
    bag = [(x - 0.034, y + 0.04), (x, y + 0.056), (x + 0.034, y + 0.04), (x + 0.054, y + 0.11)]
    bag += [
        (x + 0.05, y + 0.17),
        (x + 0.012, y + 0.182),
        (x - 0.042, y + 0.172),
        (x - 0.054, y + 0.11),
    ]
    canvas.blob(bag, colour, NEUTRAL + 2)
    mark = ((196, 40, 48), (40, 90, 170), (40, 130, 70))[int(body.rendition.variant * 3)]
    canvas.ellipse((x, y + 0.115), (0.022, 0.018), mark)
    for shift in (-0.03, 0.024):
        canvas.crease(
            [(x + shift * 0.6, y + 0.06), (x + shift * 1.2, y + 0.155)], 0.006, NEUTRAL - 22
        )


def _handbag(canvas: Canvas, body: Body, hand: Point, side: int) -> None:
    x, y = hand
    colour = body.colours["bag"]
    handle = [
        (x - 0.032, y + 0.066),
        (x - 0.016, y + 0.006),
        (x + 0.016, y + 0.006),
        (x + 0.032, y + 0.066),
    ]
    canvas.line(handle, 0.011, shaded(colour, 0.7))
    canvas.blob(
        [
            (x - 0.044, y + 0.056),
            (x + 0.044, y + 0.056),
            (x + 0.062, y + 0.138),
            (x + 0.04, y + 0.15),
            (x - 0.04, y + 0.15),
            (x - 0.062, y + 0.138),
        ],
        colour,
    )
    canvas.crease([(x - 0.05, y + 0.082), (x + 0.05, y + 0.082)], 0.007, NEUTRAL - 44)
    canvas.ellipse((x, y + 0.086), (0.008, 0.007), (222, 200, 130))


def _folder(canvas: Canvas, body: Body, hand: Point, side: int) -> None:
    x, y = hand
    paper = ((238, 236, 228), (222, 196, 142), (90, 130, 190), (232, 232, 236))[
        int(body.rendition.phase * 4)
    ]
    corners = [
        (x - 0.052, y - 0.085),
        (x + 0.046, y - 0.095),
        (x + 0.058, y + 0.036),
        (x - 0.04, y + 0.046),
    ]
    canvas.polygon(corners, paper, NEUTRAL + 4)
    canvas.crease([*corners, corners[0]], 0.004, NEUTRAL - 30)
    for step in (1, 2, 3):
        share = step * 0.03
        canvas.crease(
            [(x - 0.03, y - 0.085 + share), (x + 0.032, y - 0.091 + share)], 0.004, NEUTRAL - 24
        )
    canvas.ellipse((x, y + 0.03), (0.02, 0.016), body.skin, rim=14)


def _suitcase(canvas: Canvas, body: Body, hand: Point, side: int) -> None:
    x, y = hand
    colour = LEATHER if body.rendition.phase < 0.45 else (32, 30, 32)
    canvas.line(
        [
            (x - 0.024, y + 0.03),
            (x - 0.022, y + 0.01),
            (x + 0.022, y + 0.01),
            (x + 0.024, y + 0.03),
        ],
        0.01,
        shaded(colour, 0.6),
    )
    body_of_case = [
        (x - 0.086, y + 0.03),
        (x + 0.086, y + 0.03),
        (x + 0.088, y + 0.142),
        (x - 0.088, y + 0.142),
    ]
    canvas.polygon(body_of_case, colour)
    canvas.shadow(
        [(x - 0.08, y + 0.036), (x + 0.06, y + 0.034), (x + 0.04, y + 0.08), (x - 0.08, y + 0.08)],
        NEUTRAL + 14,
    )
    canvas.crease([*body_of_case, body_of_case[0]], 0.006, NEUTRAL - 40)
    canvas.crease([(x - 0.086, y + 0.07), (x + 0.086, y + 0.07)], 0.006, NEUTRAL - 44)
    for shift in (-0.05, 0.05):
        canvas.ellipse((x + shift, y + 0.07), (0.009, 0.008), (212, 190, 120), NEUTRAL + 20)


def _luggage(canvas: Canvas, body: Body, hand: Point, side: int) -> None:
    x, y = hand
    colour = body.colours["bag"]
    reach = -1 if body.legs[0][0][0] == body.legs[1][0][0] else side
    base = x + reach * 0.05
    top, low = 0.66, 0.955
    for shift in (-0.02, 0.02):
        canvas.line([(x + shift * 0.8, y + 0.01), (base + shift, top)], 0.009, (150, 152, 156))
    canvas.line([(x - 0.022, y + 0.008), (x + 0.022, y + 0.008)], 0.014, (40, 40, 44))
    canvas.blob(
        [(base - 0.074, top), (base + 0.074, top), (base + 0.08, low), (base - 0.08, low)], colour
    )
    for shift in (-0.04, 0.0, 0.04):
        canvas.crease([(base + shift, top + 0.03), (base + shift, low - 0.03)], 0.007, NEUTRAL - 34)
    for shift in (-0.056, 0.056):
        canvas.ellipse((base + shift, low + 0.016), (0.016, 0.016), (28, 28, 30))


def _umbrella(canvas: Canvas, body: Body, hand: Point, side: int) -> None:
    x, y = hand
    colour = body.colours["bag"]
    middle, rim = x * 0.35, -0.035
    canvas.line([(x, y + 0.03), (x * 0.72, y - 0.1), (middle, rim - 0.06)], 0.011, (92, 92, 96))
    outer = [
        (middle - 0.3, rim),
        (middle - 0.25, rim - 0.085),
        (middle - 0.11, rim - 0.15),
        (middle, rim - 0.165),
    ]
    outer += [(middle + 0.11, rim - 0.15), (middle + 0.25, rim - 0.085), (middle + 0.3, rim)]
    scallop = [
        (middle + dx, rim - dy)
        for dx, dy in ((0.2, 0.018), (0.1, -0.006), (0, 0.018), (-0.1, -0.006), (-0.2, 0.018))
    ]
    canvas.polygon(outer + scallop, colour)
    for dx in (-0.19, -0.07, 0.07, 0.19):
        canvas.crease([(middle, rim - 0.16), (middle + dx, rim - 0.01)], 0.008, NEUTRAL - 32)
    canvas.shadow(
        [
            (middle - 0.26, rim - 0.05),
            (middle + 0.28, rim - 0.05),
            (middle + 0.28, rim),
            (middle - 0.28, rim),
        ],
        NEUTRAL - 26,
    )
    canvas.line([(middle, rim - 0.165), (middle, rim - 0.185)], 0.009, (70, 70, 74))


def _box(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    (lx, ly), (rx, _) = body.arms[0][2], body.arms[1][2]
    card = ((176, 134, 88), (196, 156, 108), (148, 108, 70))[int(body.rendition.phase * 3)]
    if person.is_side:
        left, right = rx - 0.02, rx + 0.13
    else:
        left, right = lx - 0.012, rx + 0.012
    top, low = ly - 0.075, ly + 0.035
    canvas.polygon([(left, top), (right, top), (right, low), (left, low)], card)
    canvas.polygon(
        [(left, top), (right, top), (right - 0.01, top - 0.024), (left + 0.01, top - 0.024)],
        shaded(card, 1.1),
        NEUTRAL + 16,
    )
    canvas.crease([(left, top), (right, top)], 0.005, NEUTRAL - 36)
    middle = (left + right) / 2
    canvas.line([(middle, top - 0.022), (middle, low)], 0.012, shaded(card, 0.84))
    hands = (rx,) if person.is_side else (lx + 0.004, rx - 0.004)
    for x in hands:
        canvas.ellipse((x, low - 0.004), (0.02, 0.016), body.skin, rim=14)


ITEM_PAINTERS = {
    "plastic_bag": _plastic_bag,
    "handbag": _handbag,
    "folder": _folder,
    "suitcase": _suitcase,
    "luggage": _luggage,
    "umbrella": _umbrella,
}

__all__ = [
    "paint_backpack",
    "paint_backpack_behind",
    "paint_hand_items",
    "paint_messenger_bag",
    "paint_muffler",
]
