"""Paints a whole pedestrian, back to front."""

from __future__ import annotations

from .synthetic_body import Body
from .synthetic_canvas import Canvas
from .synthetic_clothes import paint_arm, paint_legs, paint_torso, paint_upper_pattern
from .synthetic_details import paint_details
from .synthetic_hair import paint_back_hair, paint_hair
from .synthetic_head import paint_head, paint_neck
from .synthetic_headwear import paint_headwear
from .synthetic_items import (
    paint_backpack,
    paint_backpack_behind,
    paint_hand_items,
    paint_messenger_bag,
    paint_muffler,
)
from .synthetic_person import Pedestrian


def paint_figure(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Draw the person; a side view looks to the right and is mirrored afterwards."""
    paint_backpack_behind(canvas, person, body)
    paint_back_hair(canvas, person, body)
    if person.is_side:
        paint_arm(canvas, person, body, body.arms[0], depth=26)
    paint_legs(canvas, person, body)
    _paint_upper(canvas, person, body)
    paint_hand_items(canvas, person, body)
    if person.view == "back":
        paint_backpack(canvas, person, body)
    paint_head(canvas, person, body)
    paint_hair(canvas, person, body)
    paint_headwear(canvas, person, body)


def _paint_upper(canvas: Canvas, person: Pedestrian, body: Body) -> None:
    """Torso, arms and what lies between or over them.

    The pattern comes before the details, which would otherwise be striped as well.
    """
    near = body.arms[1:] if person.is_side else body.arms
    paint_neck(canvas, body)
    with canvas.garment() as mask:
        paint_torso(canvas, person, body)
    paint_upper_pattern(canvas, person, body, mask)
    paint_details(canvas, person, body)
    if person.view != "back":
        paint_backpack(canvas, person, body)
    if person.muffler:
        paint_muffler(canvas, person, body)
    paint_messenger_bag(canvas, person, body)
    for arm in near:
        paint_arm(canvas, person, body, arm, depth=0)


__all__ = ["paint_figure"]
