"""Head of a drawn pedestrian without its hair: neck, skull, ears, face."""

from __future__ import annotations

from .synthetic_body import Body, mix, shaded
from .synthetic_canvas import NEUTRAL, Canvas, Colour, symmetric
from .synthetic_person import Pedestrian

# In head units, see Body.on_head.
SKULL = symmetric((0.0, -1.0), (0.62, -0.86), (0.98, -0.3), (0.95, 0.2), (0.72, 0.72), (0.3, 1.0))
BROW_TO_CHIN = ((0.84, -0.35), (0.86, 0.0), (1.02, 0.24), (0.84, 0.36), (0.86, 0.6), (0.72, 0.94))
PROFILE = ((0.1, -1.0), (0.62, -0.8), *BROW_TO_CHIN, (0.3, 1.0), (-0.2, 0.6))
PROFILE += ((-0.86, 0.3), (-1.0, -0.25), (-0.6, -0.85))
FRONT_BEARD = ((0.94, 0.25), (0.72, 0.76), (0.3, 1.02), (-0.3, 1.02), (-0.72, 0.76), (-0.94, 0.25))
FRONT_BEARD += ((-0.5, 0.5), (0.0, 0.42), (0.5, 0.5))
SIDE_BEARD = ((0.86, 0.66), (0.72, 0.96), (0.3, 1.02), (-0.2, 0.62), (-0.05, 0.2), (0.25, 0.6))
LIPSTICK: Colour = (170, 40, 56)


def paint_neck(canvas: Canvas, body: Body) -> None:
    """The neck, which collars and scarves cover."""
    x, y = body.head
    joints = [(x * 0.9, y + 0.6 * body.radii[1]), (x * 0.35, body.shoulder_y + 0.006)]
    canvas.limb(joints, [0.05, 0.06], body.skin, 18)


def paint_head(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Skull, ears and what the view shows of the face."""
    if person.is_side:
        canvas.blob(body.on_head(*PROFILE), body.skin)
        _side_face(canvas, person, body)
        return
    for side in (-1, 1):
        ear = body.on_head((side * 1.0, 0.1))[0]
        canvas.ellipse(ear, (0.009, 0.016), shaded(body.skin, 0.9))
    canvas.blob(body.on_head(*SKULL), body.skin)
    if person.view == "front":
        _front_face(canvas, person, body)


def _lips(person: Pedestrian, body: Body) -> Colour:
    female = person.gender == "female"
    return mix(body.skin, LIPSTICK, 0.62) if female else shaded(body.skin, 0.62)


def _beard(person: Pedestrian, body: Body) -> Colour | None:
    bearded = person.gender == "male" and person.age != "child" and body.rendition.spread > 0.6
    return mix(body.skin, body.colours["hair"], 0.45) if bearded else None


def _front_face(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    shift, dark = 0.26 * body.rendition.turn, shaded(body.skin, 0.34)
    for side in (-1, 1):
        eye = body.on_head((side * 0.4 + shift, -0.02))[0]
        canvas.ellipse(eye, (0.0065, 0.0045), dark)
        brow = body.on_head((side * 0.6 + shift, -0.2), (side * 0.22 + shift, -0.22))
        canvas.line(brow, 0.005, mix(dark, body.colours["hair"], 0.4))
    nose = body.on_head((shift + 0.05, 0.0), (shift + 0.14, 0.32), (shift - 0.04, 0.36))
    canvas.crease(nose, 0.005, NEUTRAL - 34)
    beard = _beard(person, body)
    if beard:
        canvas.flat(body.on_head(*FRONT_BEARD), beard, NEUTRAL - 10)
    half = 0.26 if person.gender == "female" else 0.3
    mouth = body.on_head((shift - half, 0.6), (shift + half, 0.6))
    canvas.line(mouth, 0.008 if person.gender == "female" else 0.005, _lips(person, body))


def _side_face(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    dark = shaded(body.skin, 0.34)
    canvas.ellipse(body.on_head((0.6, -0.02))[0], (0.006, 0.005), dark)
    brow = body.on_head((0.48, -0.22), (0.8, -0.2))
    canvas.line(brow, 0.005, mix(dark, body.colours["hair"], 0.4))
    canvas.line(body.on_head((0.62, 0.58), (0.84, 0.56)), 0.007, _lips(person, body))
    beard = _beard(person, body)
    if beard:
        canvas.flat(body.on_head(*SIDE_BEARD), beard, NEUTRAL - 8)


__all__ = ["paint_head", "paint_neck"]
