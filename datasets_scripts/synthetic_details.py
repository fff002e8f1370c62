"""What tells garments apart on the torso: collar, buttons, lapels, tie, zip, hood, print."""

from __future__ import annotations

from .synthetic_body import Body, mix, shaded
from .synthetic_canvas import NEUTRAL, Canvas, Colour
from .synthetic_clothes import HEM
from .synthetic_person import Pedestrian

WHITE: Colour = (236, 236, 234)
TIES = ((150, 24, 34), (36, 54, 120), (40, 92, 62), (34, 32, 38), (196, 150, 50))


def paint_details(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Everything on the torso that belongs to the upper garment."""
    if person.view == "front":
        painter = FRONT_PAINTERS.get(person.upper)
        if painter is not None:
            painter(canvas, person, body)
        else:
            _neckline(canvas, person, body)
    elif person.view == "back":
        _back_details(canvas, person, body)
    else:
        _side_details(canvas, person, body)
    if person.logo and not person.is_side:
        _print(canvas, person, body)


def _middle(body: Body) -> float:
    return 0.026 * body.rendition.turn


def _neckline(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    x, top = _middle(body), body.shoulder_y
    if person.neck == "v":
        opening = [(x - 0.042, top - 0.022), (x + 0.042, top - 0.022), (x, top + 0.075)]
        canvas.polygon(opening, body.skin, NEUTRAL - 8)
        canvas.line(
            [opening[0], opening[2], opening[1]], 0.009, shaded(body.colours["upper"], 0.72)
        )
        return
    deep = 0.028 if person.upper == "tank_top" else 0.008
    canvas.ellipse((x, top - 0.016), (0.038, 0.018 + deep), body.skin, NEUTRAL - 8)
    if person.upper == "tank_top":
        return
    arc = [(x - 0.04, top - 0.014), (x - 0.022, top + 0.006), (x + 0.022, top + 0.006)]
    canvas.crease([*arc, (x + 0.04, top - 0.014)], 0.008, NEUTRAL - 32)


def _collar(canvas: Canvas, body: Body, colour: Colour) -> None:
    x, top = _middle(body), body.shoulder_y
    for side in (-1, 1):
        wing = [(x + side * 0.006, top - 0.002), (x + side * 0.044, top - 0.034)]
        canvas.polygon(
            [*wing, (x + side * 0.05, top - 0.006), (x + side * 0.028, top + 0.022)], colour
        )
        canvas.crease([wing[0], (x + side * 0.028, top + 0.022)], 0.005, NEUTRAL - 40)


def _shirt_front(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    x, top, colour = _middle(body), body.shoulder_y, body.colours["upper"]
    end = body.hip_y + HEM["shirt"] - 0.01
    canvas.crease([(x + 0.01, top + 0.02), (x + 0.01, end)], 0.006, NEUTRAL - 34)
    dot = (90, 88, 84) if sum(colour) > 380 else (214, 212, 206)
    y = top + 0.05
    while y < end - 0.02:
        canvas.ellipse((x, y), (0.005, 0.005), dot)
        y += 0.055
    canvas.polygon([(x - 0.02, top - 0.03), (x + 0.02, top - 0.03), (x, top + 0.016)], body.skin)
    _collar(canvas, body, shaded(colour, 1.08))
    if person.tie:
        _tie(canvas, body, body.waist_y + 0.05)
        belt = body.hip_y - 0.04
        canvas.line([(-body.hip * 0.9, belt), (body.hip * 0.9, belt)], 0.016, (34, 28, 26))


def _tie(canvas: Canvas, body: Body, end: float) -> None:
    x, top = _middle(body), body.shoulder_y
    colour = TIES[int(body.rendition.variant * len(TIES))]
    if colour == body.colours["upper"]:
        colour = TIES[0]
    canvas.polygon(
        [(x - 0.012, top), (x + 0.012, top), (x + 0.008, top + 0.02), (x - 0.008, top + 0.02)],
        colour,
    )
    blade = [(x - 0.007, top + 0.02), (x + 0.007, top + 0.02), (x + 0.017, end - 0.02)]
    canvas.polygon([*blade, (x, end), (x - 0.017, end - 0.02)], colour)


def _suit_front(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    x, top, colour = _middle(body), body.shoulder_y, body.colours["upper"]
    button = body.waist_y + 0.03
    shirt = [(x - 0.046, top - 0.026), (x + 0.046, top - 0.026), (x, button)]
    canvas.polygon(shirt, WHITE, NEUTRAL - 6)
    canvas.polygon([(x - 0.018, top - 0.03), (x + 0.018, top - 0.03), (x, top + 0.012)], body.skin)
    if person.tie:
        _tie(canvas, body, button + 0.006)
    for side in (-1, 1):
        lapel = [(x + side * 0.044, top - 0.028), (x + side * 0.064, top + 0.03)]
        lapel += [(x + side * 0.048, top + 0.044), (x + side * 0.056, top + 0.058)]
        canvas.polygon(
            [*lapel, (x, button), (x + side * 0.026, top + 0.06)], shaded(colour, 1.18), NEUTRAL + 8
        )
        canvas.crease([lapel[1], lapel[3], (x, button)], 0.006, NEUTRAL - 44)
        flap = body.hip * 0.55 * side
        canvas.crease([(flap - 0.022, body.hip_y), (flap + 0.022, body.hip_y)], 0.007, NEUTRAL - 44)
    canvas.crease([(x, button), (x + 0.006, body.hip_y + 0.07)], 0.006, NEUTRAL - 50)
    canvas.ellipse((x, button + 0.012), (0.006, 0.006), shaded(colour, 0.5))


def _open_jacket(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    x, top, colour = _middle(body), body.shoulder_y, body.colours["upper"]
    end = body.hip_y + HEM["jacket"]
    if body.rendition.variant < 0.5:
        inner = WHITE if sum(colour) < 500 else (70, 70, 78)
        gap = [
            (x - 0.026, top - 0.024),
            (x + 0.026, top - 0.024),
            (x + 0.032, end),
            (x - 0.022, end),
        ]
        canvas.polygon(gap, inner, NEUTRAL - 14)
        for edge in ((gap[0], gap[3]), (gap[1], gap[2])):
            canvas.crease(edge, 0.009, NEUTRAL - 46)
    else:
        canvas.line([(x, top), (x, end)], 0.007, mix(colour, (190, 190, 190), 0.55))
        canvas.crease([(x + 0.008, top), (x + 0.008, end)], 0.006, NEUTRAL - 40)
    _collar(canvas, body, shaded(colour, 0.82))
    for side in (-1, 1):
        place = side * (body.waist + 0.01) * 0.62
        slit = [
            (place - side * 0.012, body.waist_y + 0.03),
            (place + side * 0.01, body.waist_y + 0.075),
        ]
        canvas.crease(slit, 0.009, NEUTRAL - 48)


def _coat_front(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    x, top, colour = _middle(body), body.shoulder_y, body.colours["upper"]
    end = body.hip_y + HEM["coat"]
    canvas.crease([(x + 0.018, top), (x + 0.02, end)], 0.007, NEUTRAL - 48)
    for side in (-1, 1):
        lapel = [(x + side * 0.04, top - 0.03), (x + side * 0.066, top + 0.03), (x, top + 0.1)]
        canvas.polygon([*lapel, (x + side * 0.012, top)], shaded(colour, 0.86), NEUTRAL)
        canvas.crease([lapel[1], lapel[2]], 0.007, NEUTRAL - 44)
        for y in (body.waist_y - 0.04, body.waist_y + 0.03, body.waist_y + 0.1):
            canvas.ellipse((x + side * 0.024, y), (0.006, 0.006), shaded(colour, 0.45))
        pocket = side * body.hip * 0.62
        canvas.crease(
            [(pocket - 0.024, body.hip_y + 0.02), (pocket + 0.024, body.hip_y + 0.012)],
            0.008,
            NEUTRAL - 44,
        )
    if body.rendition.variant > 0.5:
        belt = body.waist_y + 0.005
        half = body.waist + body.bulk
        canvas.line([(-half, belt), (half, belt)], 0.018, shaded(colour, 0.7))


def _hoodie_front(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    x, top, colour = _middle(body), body.shoulder_y, body.colours["upper"]
    canvas.ellipse((x, top - 0.006), (0.06, 0.032), shaded(colour, 0.84), NEUTRAL, rim=22)
    canvas.ellipse((x, top - 0.014), (0.036, 0.02), shaded(colour, 0.5))
    for side in (-1, 1):
        canvas.line([(x + side * 0.016, top + 0.01), (x + side * 0.018, top + 0.07)], 0.006, WHITE)
    low = body.hip_y + 0.02
    pouch = [(-0.04, body.waist_y + 0.02), (0.04, body.waist_y + 0.02), (0.062, low), (-0.062, low)]
    canvas.crease([(px + x, py) for px, py in [*pouch, pouch[0]]], 0.006, NEUTRAL - 42)


FRONT_PAINTERS = {
    "shirt": _shirt_front,
    "suit": _suit_front,
    "jacket": _open_jacket,
    "coat": _coat_front,
    "hoodie": _hoodie_front,
}


def _back_details(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    top, colour = body.shoulder_y, body.colours["upper"]
    spine = _middle(body)
    canvas.crease([(spine, top + 0.05), (spine * 0.6, body.waist_y)], 0.014, NEUTRAL - 10)
    if person.upper == "hoodie":
        canvas.blob(
            [
                (-0.06, top - 0.03),
                (0.06, top - 0.03),
                (0.062, top + 0.03),
                (0, top + 0.075),
                (-0.062, top + 0.03),
            ],
            shaded(colour, 0.9),
        )
    elif person.upper in ("suit", "coat"):
        end = body.hip_y + HEM[person.upper]
        canvas.crease([(0, body.hip_y - 0.01), (0.002, end)], 0.008, NEUTRAL - 60)
        canvas.crease([(0, top), (0, body.waist_y + 0.04)], 0.004, NEUTRAL - 20)
        if person.upper == "suit":
            canvas.line([(-0.03, top - 0.032), (0.03, top - 0.032)], 0.012, WHITE)
        else:
            half = body.waist + body.bulk
            canvas.line([(-half, body.waist_y), (half, body.waist_y)], 0.018, shaded(colour, 0.72))
    elif person.upper in ("shirt", "jacket"):
        canvas.crease(
            [(-body.shoulder * 0.9, top + 0.045), (body.shoulder * 0.9, top + 0.045)],
            0.005,
            NEUTRAL - 28,
        )
        canvas.line([(-0.04, top - 0.024), (0.04, top - 0.024)], 0.018, shaded(colour, 0.88))
    elif person.upper == "tank_top":
        canvas.ellipse((0, top - 0.016), (0.04, 0.036), body.skin, NEUTRAL - 8)
    if person.tie and person.upper == "shirt":
        belt = body.hip_y - 0.04
        canvas.line([(-body.hip * 0.9, belt), (body.hip * 0.9, belt)], 0.016, (34, 28, 26))


def _side_details(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    top, colour = body.shoulder_y, body.colours["upper"]
    stoop = 0.02 if person.age == "senior" else 0
    if person.upper == "hoodie":
        canvas.blob(
            [(-0.02, top - 0.035), (-0.07, top - 0.02), (-0.078, top + 0.05), (-0.03, top + 0.05)],
            shaded(colour, 0.88),
        )
    elif person.upper == "suit":
        canvas.polygon(
            [(0.03 + stoop, top - 0.022), (0.05 + stoop, top + 0.006), (0.07 + stoop, top + 0.075)],
            WHITE,
        )
        canvas.crease([(0.02 + stoop, top - 0.02), (0.062 + stoop, top + 0.1)], 0.01, NEUTRAL - 44)
        canvas.crease(
            [(-0.02, body.hip_y + 0.005), (0.03, body.hip_y + 0.005)], 0.007, NEUTRAL - 44
        )
    elif person.upper in ("jacket", "coat", "shirt"):
        canvas.line(
            [(-0.03 + stoop, top - 0.022), (0.04 + stoop, top - 0.012)], 0.022, shaded(colour, 0.84)
        )
        canvas.crease(
            [(0.01, body.waist_y + 0.05), (0.035, body.waist_y + 0.1)], 0.009, NEUTRAL - 44
        )
    if person.tie and person.upper == "shirt":
        half, belt = 0.056 * body.girth, body.hip_y - 0.04
        canvas.line([(-half, belt), (half, belt)], 0.016, (34, 28, 26))
    if person.tie:
        tie = TIES[int(body.rendition.variant * len(TIES))]
        canvas.polygon(
            [
                (0.048 + stoop, top),
                (0.058 + stoop, top + 0.01),
                (0.072 + stoop, top + 0.08),
                (0.062 + stoop, top + 0.08),
            ],
            tie,
        )


def _print(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["upper_second"]
    x = _middle(body)
    y = body.shoulder_y + 0.115
    wide = 0.05
    style = int(body.rendition.variant * 3)
    if style == 0:
        canvas.ellipse((x, y), (wide * 0.86, 0.042), colour)
        canvas.ellipse((x, y), (wide * 0.5, 0.024), body.colours["upper"])
        canvas.ellipse((x, y), (wide * 0.22, 0.011), colour)
    elif style == 1:
        for row, share in enumerate((1.0, 0.7, 0.85)):
            canvas.line(
                [
                    (x - wide * share, y - 0.03 + row * 0.027),
                    (x + wide * share, y - 0.03 + row * 0.027),
                ],
                0.015,
                colour,
            )
    else:
        canvas.polygon([(x, y - 0.05), (x + wide, y + 0.03), (x - wide, y + 0.03)], colour)
        canvas.ellipse((x, y + 0.008), (wide * 0.3, 0.014), body.colours["upper"])


__all__ = ["paint_details"]
