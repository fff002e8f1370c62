"""Head of a drawn pedestrian: face, hair, hats and what else is worn there."""

from __future__ import annotations

from .synthetic_body import Body, mix, shaded
from .synthetic_canvas import NEUTRAL, Canvas, Point
from .synthetic_person import Pedestrian

SHELL = ((0.0, -1.0), (0.62, -0.86), (0.98, -0.3), (0.95, 0.2), (0.72, 0.72), (0.3, 1.0))
PROFILE = ((0.1, -1.0), (0.62, -0.8), (0.84, -0.35), (0.86, 0.0), (1.02, 0.24), (0.84, 0.36))
PROFILE += (
    (0.86, 0.6),
    (0.72, 0.94),
    (0.3, 1.0),
    (-0.2, 0.6),
    (-0.86, 0.3),
    (-1.0, -0.25),
    (-0.6, -0.85),
)


def paint_head(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Head, hair and head wear; what hangs behind the shoulders is `paint_back_hair`."""
    if person.is_side:
        _side_head(canvas, person, body)
    elif person.view == "front":
        _front_head(canvas, person, body)
    else:
        _back_head(canvas, person, body)
    if person.hair_band and person.hat == "none" and not person.kerchief:
        _hair_band(canvas, person, body)
    if person.hat != "none":
        _hat(canvas, person, body)
    if person.headphones:
        _headphones(canvas, person, body)


def _place(body: Body, points: list[Point] | tuple[Point, ...]) -> list[Point]:
    """Head units (centre 0, crown -1, chin 1, sides -1 and 1) to body units."""
    (x, y), (rx, ry) = body.head, body.radii
    return [(x + px * rx, y + py * ry) for px, py in points]


def _round(half: tuple[Point, ...]) -> list[Point]:
    return [*half, *((-x, y) for x, y in reversed(half) if x)]


def _loose(body: Body) -> bool:
    return body.rendition.variant < 0.7


def paint_back_hair(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Long hair or a kerchief behind the shoulders, seen from the front."""
    if person.view != "front" or not (person.kerchief or person.hair_length == "long"):
        return
    colour = body.colours["hat" if person.kerchief else "hair"]
    curtain = [(0, -1.1), (0.9, -0.85), (1.25, 0.1), (1.42, 1.5), (0.9, 2.1)]
    canvas.blob(_place(body, _round(tuple(curtain))), shaded(colour, 0.8))


def paint_neck(canvas: Canvas, body: Body) -> None:
    """The neck, which collars and scarves cover."""
    x, y = body.head
    joints = [(x * 0.9, y + 0.6 * body.radii[1]), (x * 0.35, body.shoulder_y + 0.006)]
    canvas.limb(joints, [0.05, 0.06], body.skin, 18)


def _front_head(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    skin = body.skin
    for side in (-1, 1):
        canvas.ellipse(_place(body, [(side * 1.0, 0.08)])[0], (0.009, 0.016), shaded(skin, 0.9))
    canvas.blob(_place(body, _round(SHELL)), skin)
    _face(canvas, person, body)
    if person.kerchief:
        _front_kerchief(canvas, body)
    elif person.hair_length == "bald":
        canvas.shadow(_place(body, _round(((0.0, -0.9), (0.4, -0.75), (0.3, -0.5)))), NEUTRAL + 26)
    else:
        _front_hair(canvas, person, body)
    if person.sunglasses:
        _sunglasses(canvas, body, (-0.46, 0.46), 0.36)


def _face(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    shift = 0.16 * body.rendition.turn
    dark = shaded(body.skin, 0.34)
    for side in (-1, 1):
        eye = _place(body, [(side * 0.4 + shift, -0.02)])[0]
        canvas.ellipse(eye, (0.0065, 0.0045), dark)
        brow = _place(body, [(side * 0.6 + shift, -0.2), (side * 0.22 + shift, -0.22)])
        canvas.line(brow, 0.005, mix(dark, body.colours["hair"], 0.4))
    nose = _place(body, [(shift + 0.05, 0.0), (shift + 0.14, 0.32), (shift - 0.04, 0.36)])
    canvas.crease(nose, 0.005, NEUTRAL - 34)
    female = person.gender == "female"
    lips = mix(body.skin, (170, 40, 56), 0.62) if female else shaded(body.skin, 0.62)
    half = 0.26 if female else 0.3
    canvas.line(
        _place(body, [(shift - half, 0.6), (shift + half, 0.6)]), 0.008 if female else 0.005, lips
    )
    if person.gender == "male" and person.age != "child" and body.rendition.spread > 0.6:
        stubble = mix(body.skin, body.colours["hair"], 0.45)
        jaw = ((0.94, 0.25), (0.72, 0.76), (0.3, 1.02), (-0.3, 1.02), (-0.72, 0.76), (-0.94, 0.25))
        canvas.flat(_place(body, [*jaw, (-0.5, 0.5), (0, 0.42), (0.5, 0.5)]), stubble, NEUTRAL - 10)
        canvas.line(_place(body, [(shift - half, 0.62), (shift + half, 0.62)]), 0.006, lips)


def _front_hair(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hair"]
    female = person.gender == "female"
    side_end = 0.42 if female else 0.02
    if person.hair_length == "long":
        side_end = 1.0
    part = 0.35 * body.rendition.turn
    outer = [(-1.08, side_end), (-1.14, -0.35), (-0.72, -1.02), (0, -1.2), (0.72, -1.02)]
    outer += [(1.14, -0.35), (1.08, side_end)]
    inner = [(0.86, side_end - 0.05), (0.86, -0.3), (0.5, -0.5), (part, -0.66), (-0.5, -0.5)]
    inner += [(-0.86, -0.3), (-0.86, side_end - 0.05)]
    canvas.flat(_place(body, outer + inner), colour, NEUTRAL - 4)
    sheen = _place(body, [(-0.5, -0.95), (0.1, -1.05), (0.5, -0.9)])
    canvas.crease(sheen, 0.012, NEUTRAL + 26)
    if person.hair_length == "long":
        for side in (-1, 1):
            lock = [(0.98, 0.3), (1.16, 1.2), (1.02, 2.1)]
            points = _place(body, [(side * x, y) for x, y in lock])
            canvas.limb(points, [0.02, 0.034, 0.02], colour)


def _front_kerchief(canvas: Canvas, body: Body) -> None:
    colour = body.colours["hat"]
    outer = [
        (-1.02, 0.9),
        (-1.22, -0.2),
        (-0.8, -1.0),
        (0, -1.2),
        (0.8, -1.0),
        (1.22, -0.2),
        (1.02, 0.9),
    ]
    inner = [
        (0.6, 0.85),
        (0.82, 0.1),
        (0.6, -0.5),
        (0, -0.68),
        (-0.6, -0.5),
        (-0.82, 0.1),
        (-0.6, 0.85),
    ]
    canvas.flat(_place(body, outer + inner), colour)
    drape = [
        (-0.95, 0.7),
        (0, 0.98),
        (0.95, 0.7),
        (1.25, 1.5),
        (0.7, 1.95),
        (-0.7, 1.95),
        (-1.25, 1.5),
    ]
    canvas.blob(_place(body, drape), colour)
    canvas.crease(_place(body, [(-0.8, 1.1), (0.1, 1.35), (0.8, 1.05)]), 0.008, NEUTRAL - 36)


def _back_head(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    for side in (-1, 1):
        canvas.ellipse(
            _place(body, [(side * 1.0, 0.12)])[0], (0.009, 0.016), shaded(body.skin, 0.9)
        )
    canvas.blob(_place(body, _round(SHELL)), body.skin)
    colour = body.colours["hat" if person.kerchief else "hair"]
    if person.kerchief:
        canvas.blob(
            _place(
                body,
                [
                    (0, -1.2),
                    (0.85, -0.95),
                    (1.2, -0.1),
                    (1.35, 1.4),
                    (0, 2.5),
                    (-1.35, 1.4),
                    (-1.2, -0.1),
                    (-0.85, -0.95),
                ],
            ),
            colour,
        )
        return
    if person.hair_length == "bald":
        canvas.shadow(_place(body, _round(((0.0, -0.9), (0.4, -0.75), (0.3, -0.4)))), NEUTRAL + 24)
        return
    nape = 0.62 if person.gender == "male" else 0.9
    canvas.blob(
        _place(
            body,
            [
                (0, -1.18),
                (0.76, -0.98),
                (1.1, -0.3),
                (1.02, 0.3),
                (0.66, nape),
                (-0.66, nape),
                (-1.02, 0.3),
                (-1.1, -0.3),
                (-0.76, -0.98),
            ],
        ),
        colour,
    )
    if person.hair_length == "long":
        _long_back(canvas, body, colour)
    canvas.crease(_place(body, [(-0.4, -0.9), (0.2, -1.0)]), 0.012, NEUTRAL + 24)


def _long_back(canvas: Canvas, body: Body, colour: tuple) -> None:
    if _loose(body):
        canvas.blob(
            _place(
                body,
                [
                    (-1.08, -0.3),
                    (1.08, -0.3),
                    (1.22, 0.8),
                    (1.1, 2.3),
                    (0.3, 2.6),
                    (-0.4, 2.5),
                    (-1.1, 2.3),
                    (-1.22, 0.8),
                ],
            ),
            colour,
        )
        for x in (-0.55, 0.05, 0.6):
            canvas.crease(_place(body, [(x * 0.7, 0.2), (x, 2.2)]), 0.006, NEUTRAL - 28)
        return
    tail = _place(body, [(0, 0.25), (0.1, 1.2), (0.02, 2.6)])
    canvas.limb(tail, [0.034, 0.052, 0.022], colour)
    canvas.line(_place(body, [(-0.3, 0.3), (0.3, 0.3)]), 0.012, shaded(colour, 0.5))


def _side_head(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    canvas.blob(_place(body, PROFILE), body.skin)
    _side_face(canvas, person, body)
    if person.kerchief:
        colour = body.colours["hat"]
        canvas.blob(
            _place(
                body,
                [
                    (0.5, -0.95),
                    (0.62, -0.3),
                    (0.4, 0.5),
                    (0.78, 1.1),
                    (0.6, 1.9),
                    (-0.8, 2.1),
                    (-1.15, 1.0),
                    (-1.2, -0.2),
                    (-0.7, -1.05),
                ],
            ),
            colour,
        )
    elif person.hair_length == "bald":
        canvas.shadow(_place(body, _round(((0.0, -0.9), (0.4, -0.75), (0.3, -0.5)))), NEUTRAL + 24)
        _ear(canvas, body)
    else:
        _side_hair(canvas, person, body)
    if person.sunglasses:
        lens = _place(body, [(0.42, -0.14), (0.9, -0.14), (0.86, 0.2), (0.5, 0.2)])
        canvas.polygon(lens, (16, 16, 20))
        canvas.line(_place(body, [(0.5, -0.08), (-0.15, -0.02)]), 0.009, (16, 16, 20))


def _ear(canvas: Canvas, body: Body) -> None:
    canvas.ellipse(
        _place(body, [(-0.12, 0.08)])[0], (0.009, 0.015), shaded(body.skin, 0.86), NEUTRAL - 10
    )


def _side_face(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    dark = shaded(body.skin, 0.34)
    canvas.ellipse(_place(body, [(0.6, -0.02)])[0], (0.006, 0.005), dark)
    canvas.line(
        _place(body, [(0.48, -0.22), (0.8, -0.2)]), 0.005, mix(dark, body.colours["hair"], 0.4)
    )
    female = person.gender == "female"
    lips = mix(body.skin, (170, 40, 56), 0.62) if female else shaded(body.skin, 0.62)
    canvas.line(_place(body, [(0.62, 0.58), (0.84, 0.56)]), 0.007, lips)
    if person.gender == "male" and person.age != "child" and body.rendition.spread > 0.6:
        stubble = mix(body.skin, body.colours["hair"], 0.45)
        jaw = [(0.86, 0.66), (0.72, 0.96), (0.3, 1.02), (-0.2, 0.62), (-0.05, 0.2), (0.25, 0.6)]
        canvas.flat(_place(body, jaw), stubble, NEUTRAL - 8)


def _side_hair(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hair"]
    female = person.gender == "female"
    low = 0.75 if female else 0.42
    cap = [(0.72, -0.62), (0.5, -1.08), (-0.1, -1.2), (-0.82, -0.92), (-1.14, -0.2), (-0.95, low)]
    cap += [(-0.4, low + 0.05), (-0.28, 0.2), (0.02, -0.2), (0.42, -0.46)]
    canvas.blob(_place(body, cap), colour)
    if person.hair_length != "long":
        _ear(canvas, body)
    elif _loose(body):
        fall = [
            (-0.1, -0.6),
            (0.06, 0.4),
            (-0.1, 1.4),
            (-0.3, 2.4),
            (-1.15, 2.4),
            (-1.3, 1.0),
            (-1.12, -0.3),
        ]
        canvas.blob(_place(body, fall), colour)
        canvas.crease(_place(body, [(-0.6, 0.2), (-0.7, 2.1)]), 0.006, NEUTRAL - 28)
    else:
        _ear(canvas, body)
        canvas.limb(
            _place(body, [(-0.95, -0.25), (-1.5, 0.5), (-1.4, 1.9)]), [0.03, 0.05, 0.02], colour
        )
    canvas.crease(_place(body, [(-0.5, -0.95), (0.2, -1.02)]), 0.012, NEUTRAL + 24)


def _sunglasses(canvas: Canvas, body: Body, centres: tuple[float, float], half: float) -> None:
    shift, black = 0.14 * body.rendition.turn, (16, 16, 20)
    canvas.line(_place(body, [(-1.0, -0.08), (1.0, -0.08)]), 0.01, black)
    for x in centres:
        lens = [
            (x - half, -0.16),
            (x + half, -0.16),
            (x + half * 0.8, 0.22),
            (x - half * 0.8, 0.22),
        ]
        canvas.polygon(_place(body, [(px + shift, py) for px, py in lens]), black)


def _hair_band(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["muffler"]
    if person.is_side:
        points = [(-0.02, -1.2), (-0.2, -0.6), (-0.36, 0.1)]
    elif person.view == "front":
        points = [(-1.1, -0.45), (-0.6, -0.98), (0, -1.1), (0.6, -0.98), (1.1, -0.45)]
    else:
        points = [(-1.1, -0.3), (-0.6, -0.8), (0, -0.92), (0.6, -0.8), (1.1, -0.3)]
    canvas.line(_place(body, points), 0.018, colour, NEUTRAL + 6)


def _headphones(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    dark = (34, 34, 38) if body.rendition.variant < 0.6 else (222, 222, 224)
    if person.is_side:
        canvas.line(_place(body, [(-0.1, -1.22), (-0.16, -0.2)]), 0.016, dark)
        canvas.ellipse(_place(body, [(-0.14, 0.08)])[0], (0.022, 0.026), dark, rim=20)
        return
    arch = [
        (-1.2, 0.0),
        (-1.12, -0.6),
        (-0.66, -1.16),
        (0, -1.32),
        (0.66, -1.16),
        (1.12, -0.6),
        (1.2, 0.0),
    ]
    canvas.line(_place(body, arch), 0.014, dark)
    for side in (-1, 1):
        canvas.ellipse(_place(body, [(side * 1.16, 0.1)])[0], (0.016, 0.027), dark, rim=20)


def _hat(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hat"]
    lift = -1.32 if person.hat == "beanie" else -1.26
    dome = [(-1.12, -0.3), (-1.08, -0.85), (-0.6, lift + 0.06), (0, lift), (0.6, lift + 0.06)]
    dome += [(1.08, -0.85), (1.12, -0.3), (0, -0.22)]
    canvas.blob(_place(body, dome), colour)
    {"cap": _cap_visor, "beanie": _beanie_cuff, "brimmed": _brim}[person.hat](canvas, person, body)


def _cap_visor(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hat"]
    if person.is_side:
        visor = [(0.5, -0.52), (1.1, -0.5), (1.9, -0.22), (1.8, -0.12), (0.9, -0.24)]
        canvas.flat(_place(body, visor), shaded(colour, 0.8))
        return
    if person.view == "back":
        canvas.ellipse(_place(body, [(0, -0.42)])[0], (0.02, 0.012), body.colours["hair"])
        canvas.line(_place(body, [(-1.0, -0.27), (1.0, -0.27)]), 0.008, shaded(colour, 0.7))
        return
    shift = 0.2 * body.rendition.turn
    visor = [
        (-0.95, -0.42),
        (0, -0.56),
        (0.95, -0.42),
        (0.8 + shift, -0.06),
        (shift, 0.06),
        (-0.8 + shift, -0.06),
    ]
    canvas.flat(_place(body, visor), shaded(colour, 0.74), NEUTRAL - 6)
    canvas.crease(_place(body, [(-0.95, -0.42), (0, -0.52), (0.95, -0.42)]), 0.006, NEUTRAL - 44)


def _beanie_cuff(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hat"]
    cuff = [(-1.16, -0.62), (1.16, -0.62), (1.16, -0.26), (-1.16, -0.26)]
    canvas.polygon(_place(body, cuff), shaded(colour, 0.82))
    for step in range(-4, 5):
        canvas.crease(
            _place(body, [(step * 0.25, -0.6), (step * 0.25, -0.28)]), 0.004, NEUTRAL - 30
        )
    if body.rendition.variant > 0.55:
        canvas.ellipse(_place(body, [(0, -1.45)])[0], (0.02, 0.02), shaded(colour, 1.15), rim=20)


def _brim(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hat"]
    canvas.ellipse(
        _place(body, [(0.1 if person.is_side else 0, -0.36)])[0],
        (body.radii[0] * 1.9, body.radii[1] * 0.26),
        shaded(colour, 0.86),
        NEUTRAL,
        rim=16,
    )
    band = [(-1.06, -0.62), (0, -0.54), (1.06, -0.62)]
    canvas.line(
        _place(body, band), 0.014, shaded(colour, 0.45) if max(colour) > 90 else (150, 150, 150)
    )


__all__ = ["paint_back_hair", "paint_head", "paint_neck"]
