"""Background, light and camera of a drawn crop."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .synthetic_canvas import Colour

GROUND = (
    (118, 116, 112),
    (146, 140, 132),
    (96, 98, 102),
    (176, 168, 152),
    (128, 120, 108),
    (92, 132, 116),
    (170, 126, 88),
)
WALLS = (
    (168, 158, 146),
    (132, 96, 80),
    (196, 192, 186),
    (110, 116, 124),
    (206, 188, 150),
    (84, 88, 92),
    (150, 70, 60),
    (90, 110, 130),
)
CLUTTER = (
    *WALLS,
    (40, 44, 50),
    (200, 60, 50),
    (50, 90, 160),
    (220, 200, 80),
    (60, 110, 70),
    (236, 236, 232),
)
FOLIAGE = ((66, 96, 52), (92, 120, 66), (50, 76, 46), (116, 132, 76))


@dataclass(frozen=True)
class Framing:
    """Where the body lies in the crop: pixels = origin + units * scale."""

    origin: tuple[float, float]
    scale: tuple[float, float]

    @classmethod
    def sample(cls, rng: np.random.Generator, size: tuple[int, int], headroom: float) -> Framing:
        """A loosely centred box; `headroom` is what rises above the crown, in body units."""
        width, height = size
        fill, stretch, across, down = (float(value) for value in rng.random(4))
        tall = height * (0.85 + 0.11 * fill) / (1.02 + headroom)
        wide = tall * (0.94 + 0.26 * stretch)
        free = height - tall * (1.02 + headroom)
        top = free * (0.3 + 0.5 * down) + tall * (headroom + 0.01)
        return cls(((0.5 + 0.1 * (across - 0.5)) * width, top), (wide, tall))


def paint_background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A blurred place behind the person.

    Returns:
        (height, width, 3), float32, 0-255.
    """
    painter = PLACES[int(rng.integers(len(PLACES)))]
    image = Image.new("RGB", size)
    painter(rng, image, ImageDraw.Draw(image))
    soft = image.filter(ImageFilter.GaussianBlur(size[1] * float(rng.uniform(0.002, 0.012))))
    grain = texture(rng, size, 8) * float(rng.uniform(1, 6))
    grain = grain + texture(rng, size, 40) * float(rng.uniform(0, 5))
    return np.asarray(soft, np.float32) + grain


def texture(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise of unit scale, (height, width, 1), about `cells` blots along the width."""
    width, height = cells, 2 * cells
    coarse = rng.standard_normal((height, width)).astype(np.float32)
    noise = Image.fromarray(coarse, "F").resize(size, Image.Resampling.BILINEAR)
    return np.asarray(noise)[..., None]


def _choose(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of the colours, up to 14 lighter or darker."""
    base = colours[int(rng.integers(len(colours)))]
    shift = int(rng.integers(-14, 15))
    return tuple(max(0, min(255, value + shift)) for value in base)


def _split(rng, image, draw, low: float, high: float) -> int:
    """Paint ground below a horizon and return the horizon in pixels."""
    width, height = image.size
    horizon = int(height * rng.uniform(low, high))
    draw.rectangle((0, horizon, width, height), fill=_choose(rng, GROUND))
    return horizon


def _street(rng, image, draw) -> None:
    width, height = image.size
    image.paste(_choose(rng, WALLS), (0, 0, width, height))
    horizon = _split(rng, image, draw, 0.35, 0.75)
    glass, step = (
        _choose(rng, ((60, 70, 84), (96, 112, 128), (38, 42, 50))),
        width * rng.uniform(0.35, 0.8),
    )
    x = -step * rng.random()
    while x < width:
        draw.rectangle(
            (x, horizon * 0.1, x + step * 0.6, horizon * rng.uniform(0.5, 0.9)), fill=glass
        )
        x += step
    kerb = horizon + height * rng.uniform(0.02, 0.1)
    draw.rectangle(
        (0, kerb, width, kerb + height * 0.015), fill=_choose(rng, ((190, 186, 178), (84, 84, 86)))
    )
    if rng.random() < 0.4:
        _pole(rng, image, draw)


def _wall(rng, image, draw) -> None:
    width, height = image.size
    colour = _choose(rng, WALLS)
    image.paste(colour, (0, 0, width, height))
    joint = tuple(int(value * 0.84) for value in colour)
    course = height * rng.uniform(0.035, 0.12)
    for row in range(int(height / course) + 1):
        y = row * course
        draw.line((0, y, width, y), fill=joint)
        for x in np.arange(-(row % 2) * course, width, 2 * course):
            draw.line((x, y, x, y + course), fill=joint)
    _split(rng, image, draw, 0.72, 0.9)


def _pavement(rng, image, draw) -> None:
    width, height = image.size
    colour = _choose(rng, GROUND)
    image.paste(colour, (0, 0, width, height))
    joint = tuple(int(value * 0.86) for value in colour)
    y, step, slant = 0.0, height * rng.uniform(0.05, 0.12), rng.uniform(-0.4, 0.4)
    while y < height * 1.5:
        draw.line((0, y, width, y - slant * width), fill=joint)
        y, step = y + step, step * 1.08
    for x in np.arange(-1.5, 2.5, rng.uniform(0.3, 0.6)):
        draw.line((width * (0.5 + (x - 0.5) * 0.5), 0, width * x, height), fill=joint)


def _plain(rng, image, draw) -> None:
    image.paste(_choose(rng, GROUND + WALLS), (0, 0, *image.size))


def _gradient(rng, image, draw) -> None:
    width, height = image.size
    top, low = np.array(_choose(rng, WALLS)), np.array(_choose(rng, GROUND))
    for y in range(height):
        draw.line((0, y, width, y), fill=tuple(int(v) for v in top + (low - top) * (y / height)))


def _clutter(rng, image, draw) -> None:
    width, height = image.size
    image.paste(_choose(rng, WALLS), (0, 0, width, height))
    _split(rng, image, draw, 0.55, 0.9)
    for _ in range(int(rng.integers(4, 10))):
        x, y = rng.uniform(-0.2, 1.0) * width, rng.uniform(-0.1, 0.8) * height
        box = (x, y, x + rng.uniform(0.1, 0.5) * width, y + rng.uniform(0.05, 0.3) * height)
        draw.rectangle(box, fill=_choose(rng, CLUTTER))
    if rng.random() < 0.5:
        _pole(rng, image, draw)


def _park(rng, image, draw) -> None:
    width, height = image.size
    image.paste(_choose(rng, FOLIAGE), (0, 0, width, height))
    for _ in range(40):
        x, y, r = (
            rng.uniform(0, width),
            rng.uniform(0, height * 0.7),
            rng.uniform(0.04, 0.2) * width,
        )
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_choose(rng, FOLIAGE))
    _split(rng, image, draw, 0.6, 0.85)


def _zebra(rng, image, draw) -> None:
    width, height = image.size
    image.paste(_choose(rng, ((84, 86, 90), (110, 110, 112))), (0, 0, width, height))
    step, slant = height * rng.uniform(0.07, 0.14), rng.uniform(-0.5, 0.5) * width
    for y in np.arange(height * 0.35, height * 1.4, 2 * step):
        draw.polygon(
            [(0, y), (width, y - slant), (width, y - slant + step), (0, y + step)],
            fill=(206, 206, 200),
        )


def _pole(rng, image, draw) -> None:
    width, height = image.size
    x = rng.uniform(0, 1) * width
    draw.rectangle(
        (x, 0, x + width * rng.uniform(0.03, 0.09), height * rng.uniform(0.5, 1)),
        fill=_choose(rng, CLUTTER),
    )


PLACES = (_street, _wall, _pavement, _plain, _gradient, _clutter, _park, _zebra, _street, _pavement)


def cast_shadow(
    rng: np.random.Generator, background: np.ndarray, feet: tuple[float, float], tall: float
) -> np.ndarray:
    """Darken the ground under the feet, and to one side when the sun shines."""
    height, width, _ = background.shape
    veil = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(veil)
    x, y = feet
    reach, lean, strength = (
        float(rng.uniform(0, 0.4)) * tall,
        float(rng.uniform(-1, 1)),
        rng.uniform(0.2, 0.55),
    )
    draw.ellipse((x - 0.13 * tall, y - 0.025 * tall, x + 0.13 * tall, y + 0.022 * tall), fill=255)
    if rng.random() < 0.45:
        tip = (x + lean * reach * 1.6, y - 0.2 * reach)
        draw.polygon(
            [
                (x - 0.07 * tall, y),
                (x + 0.07 * tall, y),
                (tip[0] + 4, tip[1]),
                (tip[0] - 4, tip[1]),
            ],
            fill=210,
        )
    soft = np.asarray(veil.filter(ImageFilter.BoxBlur(0.012 * tall)), np.float32)[..., None]
    return background * (1 - soft * (float(strength) / 255))


def photograph(rng: np.random.Generator, scene: np.ndarray) -> Image.Image:
    """Light, lens, sensor and compression.

    Args:
        scene: (height, width, 3), float32, 0-255.

    Returns:
        An RGB picture of the same size.
    """
    height, width, _ = scene.shape
    grey = scene.mean(axis=2, keepdims=True)
    scene = grey + (scene - grey) * float(rng.uniform(0.5, 0.95))
    tint = 1 + rng.uniform(-0.06, 0.06, 3).astype(np.float32)
    contrast, exposure = float(rng.uniform(0.86, 1.3)), float(rng.uniform(0.82, 1.06))
    lit = (scene * tint * exposure - 112) * contrast + 112 + float(rng.uniform(-6, 10))
    image = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8), "RGB")
    if rng.random() < 0.35:
        share = float(rng.uniform(0.5, 0.85))
        small = (max(8, round(width * share)), max(16, round(height * share)))
        image = image.resize(small, Image.Resampling.BILINEAR).resize(
            (width, height), Image.Resampling.BICUBIC
        )
    image = image.filter(ImageFilter.GaussianBlur(height / 256 * float(rng.uniform(0.0, 1.0))))
    noise = rng.standard_normal((height, width, 1), np.float32) * float(rng.uniform(0.5, 4.5))
    image = Image.fromarray(
        np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8), "RGB"
    )
    return _compress(image, int(rng.integers(35, 92))) if rng.random() < 0.6 else image


def _compress(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


__all__ = ["Framing", "cast_shadow", "paint_background", "photograph", "texture"]
