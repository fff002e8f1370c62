"""Hair of a drawn pedestrian, or the kerchief that covers it."""

from __future__ import annotations

from .synthetic_body import Body, shaded
from .synthetic_canvas import NEUTRAL, Canvas, Colour, symmetric
from .synthetic_person import Pedestrian

# In head units, see Body.on_head.
CURTAIN = symmetric((0.0, -1.1), (0.9, -0.85), (1.25, 0.1), (1.42, 1.5), (0.9, 2.1))
SHINE = symmetric((0.0, -0.9), (0.4, -0.75), (0.3, -0.45))
VEIL = ((1.02, 0.9), (1.22, -0.2), (0.8, -1.0), (0.0, -1.2), (-0.8, -1.0), (-1.22, -0.2))
VEIL += ((-1.02, 0.9), (-0.6, 0.85), (-0.82, 0.1), (-0.6, -0.5), (0.0, -0.68), (0.6, -0.5))
VEIL += ((0.82, 0.1), (0.6, 0.85))
DRAPE = ((-0.95, 0.7), (0.0, 0.98), (0.95, 0.7), (1.25, 1.5), (0.7, 1.95), (-0.7, 1.95))
DRAPE += ((-1.25, 1.5),)
VEIL_BEHIND = symmetric(
    (0.0, -1.2), (0.85, -0.95), (1.2, -0.1), (1.35, 1.4), (0.7, 2.3), (0.0, 2.5)
)
VEIL_ASIDE = ((0.5, -0.95), (0.62, -0.3), (0.4, 0.5), (0.78, 1.1), (0.6, 1.9), (-0.8, 2.1))
VEIL_ASIDE += ((-1.15, 1.0), (-1.2, -0.2), (-0.7, -1.05))
MANE = ((-1.08, -0.3), (1.08, -0.3), (1.22, 0.8), (1.1, 2.3), (0.3, 2.6), (-0.4, 2.5))
MANE += ((-1.1, 2.3), (-1.22, 0.8))
MANE_ASIDE = ((-0.1, -0.6), (0.06, 0.4), (-0.1, 1.4), (-0.3, 2.4), (-1.15, 2.4), (-1.3, 1.0))
MANE_ASIDE += ((-1.12, -0.3),)


def paint_back_hair(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Long hair or a kerchief behind the shoulders, seen from the front."""
    if person.view == "front" and (person.kerchief or person.hair_length == "long"):
        colour = body.colours["hat" if person.kerchief else "hair"]
        canvas.blob(body.on_head(*CURTAIN), shaded(colour, 0.8))


def paint_hair(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Everything on and around the skull."""
    if person.kerchief:
        _kerchief(canvas, person, body)
    elif person.hair_length == "bald":
        canvas.shadow(body.on_head(*SHINE), NEUTRAL + 25)
        if person.is_side:
            _ear(canvas, body)
    elif person.is_side:
        _side_hair(canvas, person, body)
    elif person.view == "front":
        _front_hair(canvas, person, body)
    else:
        _back_hair(canvas, person, body)


def _kerchief(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hat"]
    if person.view == "front":
        canvas.flat(body.on_head(*VEIL), colour)
        canvas.blob(body.on_head(*DRAPE), colour)
        canvas.crease(body.on_head((-0.8, 1.1), (0.1, 1.35), (0.8, 1.05)), 0.008, NEUTRAL - 36)
        return
    canvas.blob(body.on_head(*(VEIL_ASIDE if person.is_side else VEIL_BEHIND)), colour)
    canvas.crease(body.on_head((-0.5, 0.9), (0.0, 1.1), (0.5, 0.9)), 0.008, NEUTRAL - 26)


def _is_loose(body: Body) -> bool:
    return body.rendition.variant < 0.7


def _sheen(canvas: Canvas, body: Body) -> None:
    canvas.crease(body.on_head((-0.4, -0.93), (0.2, -1.02)), 0.012, NEUTRAL + 24)


def _front_hair(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    long, female = person.hair_length == "long", person.gender == "female"
    colour, part = body.colours["hair"], 0.35 * body.rendition.turn
    low = 1.0 if long else (0.42 if female else 0.02)
    outer = [(-1.08, low), (-1.14, -0.35), (-0.72, -1.02), (0.0, -1.2), (0.72, -1.02)]
    outer += [(1.14, -0.35), (1.08, low)]
    inner = [(0.86, low - 0.05), (0.86, -0.3), (0.5, -0.5), (part, -0.66), (-0.5, -0.5)]
    inner += [(-0.86, -0.3), (-0.86, low - 0.05)]
    canvas.flat(body.on_head(*outer, *inner), colour, NEUTRAL - 4)
    _sheen(canvas, body)
    if long:
        for side in (-1, 1):
            lock = body.on_head((side * 0.98, 0.3), (side * 1.16, 1.2), (side * 1.02, 2.1))
            canvas.limb(lock, [0.02, 0.034, 0.02], colour)


def _back_hair(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hair"]
    nape = 0.5 if person.gender == "male" else 0.9
    cap = symmetric((0.0, -1.18), (0.76, -0.98), (1.1, -0.3), (1.02, 0.3), (0.66, nape))
    canvas.blob(body.on_head(*cap), colour)
    if person.hair_length == "long":
        _long_back(canvas, body, colour)
    else:
        for x in (-0.6, -0.2, 0.25, 0.66):
            canvas.crease(body.on_head((x * 0.5, -0.7), (x, nape - 0.15)), 0.005, NEUTRAL - 24)
    _sheen(canvas, body)


def _long_back(canvas: Canvas, body: Body, colour: Colour) -> None:
    if _is_loose(body):
        canvas.blob(body.on_head(*MANE), colour)
        for x in (-0.55, 0.05, 0.6):
            canvas.crease(body.on_head((x * 0.7, 0.2), (x, 2.2)), 0.006, NEUTRAL - 28)
        return
    tail = body.on_head((0.0, 0.25), (0.1, 1.2), (0.02, 2.6))
    canvas.limb(tail, [0.034, 0.052, 0.022], colour)
    canvas.line(body.on_head((-0.3, 0.3), (0.3, 0.3)), 0.012, shaded(colour, 0.5))


def _side_hair(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hair"]
    low = 0.75 if person.gender == "female" else 0.42
    cap = [(0.72, -0.62), (0.5, -1.08), (-0.1, -1.2), (-0.82, -0.92), (-1.14, -0.2), (-0.95, low)]
    cap += [(-0.4, low + 0.05), (-0.28, 0.2), (0.02, -0.2), (0.42, -0.46)]
    canvas.blob(body.on_head(*cap), colour)
    if person.hair_length == "long" and _is_loose(body):
        canvas.blob(body.on_head(*MANE_ASIDE), colour)
        canvas.crease(body.on_head((-0.6, 0.2), (-0.7, 2.1)), 0.006, NEUTRAL - 28)
    else:
        _ear(canvas, body)
    if person.hair_length == "long" and not _is_loose(body):
        tail = body.on_head((-0.95, -0.25), (-1.5, 0.5), (-1.4, 1.9))
        canvas.limb(tail, [0.03, 0.05, 0.02], colour)
    _sheen(canvas, body)


def _ear(canvas: Canvas, body: Body) -> None:
    ear = body.on_head((-0.12, 0.08))[0]
    canvas.ellipse(ear, (0.009, 0.015), shaded(body.skin, 0.86), NEUTRAL - 10)


__all__ = ["paint_back_hair", "paint_hair"]
