"""Head wear of a drawn pedestrian: hats, sunglasses, hair band, headphones."""

from __future__ import annotations

from .synthetic_body import Body, shaded
from .synthetic_canvas import NEUTRAL, Canvas, Colour, symmetric
from .synthetic_person import Pedestrian

BLACK: Colour = (16, 16, 20)
# In head units, see Body.on_head.
BAND = {
    "front": ((-1.1, -0.45), (-0.6, -0.98), (0.0, -1.1), (0.6, -0.98), (1.1, -0.45)),
    "back": ((-1.1, -0.3), (-0.6, -0.8), (0.0, -0.92), (0.6, -0.8), (1.1, -0.3)),
    "side": ((-0.02, -1.2), (-0.2, -0.6), (-0.36, 0.1)),
}
ARCH = ((-1.2, 0.0), (-1.12, -0.6), (-0.66, -1.16), (0.0, -1.32), (0.66, -1.16), (1.12, -0.6))
ARCH += ((1.2, 0.0),)


def paint_headwear(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """What is worn over face and hair."""
    if person.sunglasses and person.view != "back":
        _sunglasses(canvas, person, body)
    if person.hair_band and person.hat == "none" and not person.kerchief:
        band = BAND["side" if person.is_side else person.view]
        canvas.line(body.on_head(*band), 0.018, body.colours["muffler"], NEUTRAL + 6)
    if person.hat != "none":
        _hat(canvas, person, body)
    if person.headphones:
        _headphones(canvas, person, body)


def _sunglasses(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    if person.is_side:
        lens = body.on_head((0.42, -0.14), (0.9, -0.14), (0.86, 0.2), (0.5, 0.2))
        canvas.polygon(lens, BLACK)
        canvas.line(body.on_head((0.5, -0.08), (-0.15, -0.02)), 0.009, BLACK)
        return
    shift = 0.24 * body.rendition.turn
    canvas.line(body.on_head((-1.0, -0.08), (1.0, -0.08)), 0.01, BLACK)
    for x in (shift - 0.46, shift + 0.46):
        lens = ((x - 0.36, -0.16), (x + 0.36, -0.16), (x + 0.29, 0.22), (x - 0.29, 0.22))
        canvas.polygon(body.on_head(*lens), BLACK)


def _headphones(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = (34, 34, 38) if body.rendition.variant < 0.6 else (222, 222, 224)
    if person.is_side:
        canvas.line(body.on_head((-0.1, -1.22), (-0.16, -0.2)), 0.016, colour)
        canvas.ellipse(body.on_head((-0.14, 0.08))[0], (0.022, 0.026), colour, rim=20)
        return
    canvas.line(body.on_head(*ARCH), 0.014, colour)
    for side in (-1, 1):
        canvas.ellipse(body.on_head((side * 1.16, 0.1))[0], (0.016, 0.027), colour, rim=20)


def _hat(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    top = -1.32 if person.hat == "beanie" else -1.26
    dome = symmetric((0.0, top), (0.6, top + 0.06), (1.08, -0.85), (1.12, -0.3), (0.0, -0.22))
    canvas.blob(body.on_head(*dome), body.colours["hat"])
    {"cap": _visor, "beanie": _cuff, "brimmed": _brim}[person.hat](canvas, person, body)


def _visor(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hat"]
    if person.is_side:
        visor = ((0.5, -0.52), (1.1, -0.5), (1.9, -0.22), (1.8, -0.12), (0.9, -0.24))
        canvas.flat(body.on_head(*visor), shaded(colour, 0.8))
        return
    if person.view == "back":
        canvas.ellipse(body.on_head((0.0, -0.42))[0], (0.02, 0.012), body.colours["hair"])
        canvas.line(body.on_head((-1.0, -0.27), (1.0, -0.27)), 0.008, shaded(colour, 0.7))
        return
    shift = 0.2 * body.rendition.turn
    visor = [(-0.95, -0.42), (0.0, -0.56), (0.95, -0.42)]
    visor += [(0.8 + shift, -0.06), (shift, 0.06), (-0.8 + shift, -0.06)]
    canvas.flat(body.on_head(*visor), shaded(colour, 0.74), NEUTRAL - 6)
    canvas.crease(body.on_head((-0.95, -0.42), (0.0, -0.52), (0.95, -0.42)), 0.006, NEUTRAL - 44)


def _cuff(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour = body.colours["hat"]
    cuff = body.on_head((-1.16, -0.62), (1.16, -0.62), (1.16, -0.26), (-1.16, -0.26))
    canvas.polygon(cuff, shaded(colour, 0.82))
    for step in range(-4, 5):
        canvas.crease(body.on_head((step * 0.25, -0.6), (step * 0.25, -0.28)), 0.004, NEUTRAL - 30)
    if body.rendition.variant > 0.55:
        canvas.ellipse(body.on_head((0.0, -1.45))[0], (0.02, 0.02), shaded(colour, 1.15), rim=20)


def _brim(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    colour, (rx, ry) = body.colours["hat"], body.radii
    middle = body.on_head((0.1 if person.is_side else 0.0, -0.36))[0]
    canvas.ellipse(middle, (rx * 1.9, ry * 0.26), shaded(colour, 0.86), NEUTRAL, rim=16)
    ribbon = shaded(colour, 0.45) if max(colour) > 90 else (150, 150, 150)
    canvas.line(body.on_head((-1.06, -0.62), (0.0, -0.54), (1.06, -0.62)), 0.014, ribbon)


__all__ = ["paint_headwear"]
