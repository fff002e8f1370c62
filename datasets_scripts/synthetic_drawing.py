"""From a pedestrian to a crop: figure, place, camera."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from .synthetic_body import Rendition, build_body
from .synthetic_canvas import Canvas
from .synthetic_figure import paint_figure
from .synthetic_person import Pedestrian
from .synthetic_scene import Framing, cast_shadow, paint_background, photograph, texture

SUPERSAMPLING = 2
MINIMUM_SIDE = 16


def draw_pedestrian(
    pedestrian: Pedestrian, rng: np.random.Generator, size: tuple[int, int] = (128, 256)
) -> Image.Image:
    """Draw one crop; skin, build, pose, place, light and camera come from `rng` alone.

    Args:
        size: Width and height in pixels, at least 16 each.

    Returns:
        An RGB picture of that size.

    Raises:
        ValueError: `size` is too small.
    """
    if min(size) < MINIMUM_SIDE:
        raise ValueError(f"`size` must be at least {MINIMUM_SIDE} pixels each way, got {size}.")
    rendition = Rendition.sample(rng)
    framing = Framing.sample(rng, size, _headroom(pedestrian))
    body = build_body(pedestrian, rendition, rng)
    origin, scale = ([v * SUPERSAMPLING for v in pair] for pair in (framing.origin, framing.scale))
    large = tuple(side * SUPERSAMPLING for side in size)
    lens = (rendition.lean, rendition.camera)
    canvas = Canvas(large, (tuple(origin), tuple(scale)), rendition.light, lens)
    paint_figure(canvas, pedestrian, body)
    colour, coverage = canvas.finish(size, mirrored=pedestrian.view == "left")
    colour = colour * _volume(coverage, rendition.light, pedestrian.view == "left")
    colour = (
        colour
        * (1 + texture(rng, size, 11) * 0.05)
        * np.linspace(1.04, 0.9, size[1], dtype=np.float32).reshape(-1, 1, 1)
    )
    background = paint_background(rng, size)
    feet = (framing.origin[0], framing.origin[1] + framing.scale[1] * 0.985)
    if pedestrian.view == "left":
        feet = (size[0] - feet[0], feet[1])
    background = cast_shadow(rng, background, feet, framing.scale[1])
    return photograph(rng, colour * coverage + background * (1 - coverage))


def _headroom(pedestrian: Pedestrian) -> float:
    """Free space above the crown in body units; a child does not fill the crop."""
    room = 0.18 if pedestrian.age == "child" else 0.0
    if "umbrella" in pedestrian.hand_items:
        return room + 0.23
    return room + (0.04 if pedestrian.hat != "none" else 0.015)


def _volume(coverage: np.ndarray, light: float, mirrored: bool) -> np.ndarray:
    """Light from one side: the silhouette, blurred, serves as a height map."""
    height = coverage.shape[0]
    mask = Image.fromarray((coverage[..., 0] * 255).astype(np.uint8), "L")
    relief = np.asarray(mask.filter(ImageFilter.BoxBlur(height / 40)), np.float32) / 255
    slope = np.gradient(relief, axis=1)[..., None] * (height / 40)
    return 1 - np.clip(slope * (light if not mirrored else -light) * 0.55, -0.3, 0.3)


__all__ = ["draw_pedestrian"]
