"""Drawing surface of one person: flat colour and soft shade kept apart, in body units."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Point = tuple[float, float]
Colour = tuple[int, int, int]
# Period and width in body units, and how much of the second colour a band holds (of 255).
BANDS = {
    "thin_stripes": (0.031, 0.012, 255),
    "pinstripes": (0.031, 0.009, 255),
    "thick_stripes": (0.09, 0.045, 255),
    "plaid": (0.052, 0.02, 150),
}
BANDS_UPRIGHT = {
    "thin_stripes": (False,),
    "pinstripes": (True,),
    "thick_stripes": (False,),
    "plaid": (True, False),
}
NEUTRAL = 128  # shade value that leaves a colour as it is


class Canvas:
    """Draws in body units: x from the middle of the body, y from 0 (crown) to 1 (soles).

    Colour and shade are separate pictures, so a pattern painted over a garment keeps its volume.

    Args:
        size: Pixels, supersampled.
        framing: Pixel of the crown's middle, and pixels per body unit, each (x, y).
        light: -1 (from the left) to 1 (from the right).
        lens: Sideways lean of the crown in body units; and how much a camera above the person
            enlarges the head and shortens the legs.
    """

    def __init__(
        self, size: tuple[int, int], framing: tuple[Point, Point], light: float, lens: Point
    ) -> None:
        self.size = size
        self.albedo = Image.new("RGBA", size, (0, 0, 0, 0))
        self.shade = Image.new("L", size, NEUTRAL)
        self._albedo = ImageDraw.Draw(self.albedo)
        self._shade = ImageDraw.Draw(self.shade)
        self._origin, self._scale = framing
        self._lean, self._height = lens
        self.light = light
        self._mask: ImageDraw.ImageDraw | None = None

    def pixels(self, points: Sequence[Point]) -> list[Point]:
        """Body units to pixels."""
        (ox, oy), (sx, sy), lean, high = self._origin, self._scale, self._lean, self._height
        return [
            (
                ox + (x * (1 + high * (0.5 - y)) + lean * (1 - y)) * sx,
                oy + y * (1 + high * (1 - y)) * sy,
            )
            for x, y in points
        ]

    def length(self, units: float) -> float:
        """A length in body units to vertical pixels."""
        return units * self._scale[1]

    def polygon(self, points: Sequence[Point], colour: Colour, shade: int = NEUTRAL) -> None:
        """A filled polygon with a flat shade."""
        corners = self.pixels(points)
        self._albedo.polygon(corners, fill=(*colour, 255))
        self._shade.polygon(corners, fill=shade)
        if self._mask is not None:
            self._mask.polygon(corners, fill=255)

    def blob(self, points: Sequence[Point], colour: Colour, shade: int = NEUTRAL) -> None:
        """A closed smooth curve through the points, darker towards its sides."""
        curve = smooth(points)
        self.polygon(curve, colour, shade - 26)
        middle = curve.mean(axis=0)
        for factor, offset, value in ((0.82, 0.08, shade), (0.42, 0.22, shade + 12)):
            inner = middle + (curve - middle) * (factor, 0.96)
            inner[:, 0] += self.light * offset * np.ptp(curve[:, 0]) * 0.5
            self._shade.polygon(self.pixels(inner), fill=value)

    def flat(self, points: Sequence[Point], colour: Colour, shade: int = NEUTRAL) -> None:
        """A closed smooth curve without volume."""
        self.polygon(smooth(points), colour, shade)

    def ellipse(
        self, centre: Point, radii: Point, colour: Colour, shade: int = NEUTRAL, rim: int = 0
    ) -> None:
        """A filled ellipse; `rim` darkens its border by that much."""
        self._oval(centre, radii, colour, shade - rim)
        if rim:
            x = centre[0] + self.light * radii[0] * 0.15
            self._shade.ellipse(self._box((x, centre[1]), (radii[0] * 0.8, radii[1] * 0.9)), shade)

    def _oval(self, centre: Point, radii: Point, colour: Colour, shade: int) -> None:
        box = self._box(centre, radii)
        self._albedo.ellipse(box, fill=(*colour, 255))
        self._shade.ellipse(box, fill=shade)
        if self._mask is not None:
            self._mask.ellipse(box, fill=255)

    def _box(self, centre: Point, radii: Point) -> list[Point]:
        (x, y), (rx, ry) = centre, radii
        return self.pixels([(x - rx, y - ry), (x + rx, y + ry)])

    def limb(
        self,
        joints: Sequence[Point],
        widths: Sequence[float],
        colour: Colour,
        depth: int = 0,
        *,
        cut: bool = False,
    ) -> None:
        """A tube through the joints.

        Args:
            depth: Darkens what is further away.
            cut: Whether it ends straight, like a sleeve, or round.
        """
        base = NEUTRAL - depth
        self.polygon(tube(joints, widths, cut), colour, base - 26)
        for factor, offset, value in ((0.76, 0.1, base), (0.34, 0.26, base + 13)):
            inner = [
                (x + self.light * offset * w * 0.5, y)
                for (x, y), w in zip(joints, widths, strict=True)
            ]
            core = tube(inner, [width * factor for width in widths], cut)
            self._shade.polygon(self.pixels(core), fill=value)

    def line(
        self, points: Sequence[Point], width: float, colour: Colour, shade: int = NEUTRAL
    ) -> None:
        """A stroke of constant width in body units."""
        pixels, thickness = self.pixels(points), max(1, round(self.length(width)))
        self._albedo.line(pixels, fill=(*colour, 255), width=thickness, joint="curve")
        self._shade.line(pixels, fill=shade, width=thickness, joint="curve")

    def crease(self, points: Sequence[Point], width: float, shade: int) -> None:
        """A stroke in the shade alone: a fold, a seam, a shadow."""
        thickness = max(1, round(self.length(width)))
        self._shade.line(self.pixels(points), fill=shade, width=thickness, joint="curve")

    def shadow(self, points: Sequence[Point], shade: int) -> None:
        """A smooth patch in the shade alone."""
        self._shade.polygon(self.pixels(smooth(points)), fill=shade)

    @contextlib.contextmanager
    def garment(self) -> Iterator[Image.Image]:
        """Collects everything drawn inside as a mask, for `pattern`."""
        mask = Image.new("L", self.size, 0)
        self._mask = ImageDraw.Draw(mask)
        yield mask
        self._mask = None

    def pattern(self, mask: Image.Image, kind: str, colour: Colour, phase: float) -> None:
        """Stripes (pinstripes are upright) or plaid in a second colour over what `mask` covers."""
        weave = Image.new("L", self.size, 0)
        for upright in BANDS_UPRIGHT[kind]:
            weave = ImageChops.add(weave, self._bands(kind, phase, upright))
        self.albedo.paste((*colour, 255), mask=ImageChops.multiply(weave, mask))

    def _bands(self, kind: str, phase: float, upright: bool) -> Image.Image:
        period, width, fill = BANDS[kind]
        step, thickness = self.length(period), max(1, round(self.length(width)))
        across, along = self.size if upright else self.size[::-1]
        bands = Image.new("L", self.size, 0)
        draw = ImageDraw.Draw(bands)
        for index in range(math.ceil(across / step) + 1):
            start = round((index + phase - 1) * step)
            end = start + thickness - 1
            draw.rectangle((start, 0, end, along) if upright else (0, start, along, end), fill=fill)
        return bands

    def finish(self, size: tuple[int, int], mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
        """Reduce to `size` and apply the shade.

        Returns:
            colour (height, width, 3) and coverage (height, width, 1), float32, 0-255 and 0-1.
        """
        soft = self.shade.filter(ImageFilter.BoxBlur(self.length(0.006)))
        shade = np.asarray(soft.resize(size, Image.Resampling.BOX), np.float32)[..., None]
        layer = np.asarray(self.albedo.resize(size, Image.Resampling.BOX), np.float32)
        # A dark cloth would show no folds at all if shade only multiplied.
        colour = layer[..., :3] * (shade / NEUTRAL) + (shade - NEUTRAL) * 0.16
        coverage = layer[..., 3:] / 255
        if mirrored:
            colour, coverage = colour[:, ::-1], coverage[:, ::-1]
        return colour, coverage


def symmetric(*half: Point) -> list[Point]:
    """An outline from its right half, top to bottom."""
    return [*half, *((-x, y) for x, y in reversed(half) if x)]


def smooth(points: Sequence[Point], steps: int = 5) -> np.ndarray:
    """Closed Catmull-Rom curve through the points, as an array (points * steps, 2)."""
    knots = np.asarray(points, np.float64)
    before, after, beyond = (np.roll(knots, shift, axis=0) for shift in (1, -1, -2))
    t = (np.arange(steps) / steps)[:, None, None]
    curve = 0.5 * (
        2 * knots
        + (after - before) * t
        + (2 * before - 5 * knots + 4 * after - beyond) * t**2
        + (3 * (knots - after) + beyond - before) * t**3
    )
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def tube(joints: Sequence[Point], widths: Sequence[float], cut: bool = False) -> list[Point]:
    """Outline of a tube through the joints; its start is round, its end too unless `cut`."""
    left, right = [], []
    last = len(joints) - 1
    for index, ((x, y), width) in enumerate(zip(joints, widths, strict=True)):
        (x0, y0), (x1, y1) = joints[max(index - 1, 0)], joints[min(index + 1, last)]
        angle = math.atan2(y1 - y0, x1 - x0)
        turns = (0.5,)
        if index == 0:
            turns = (1, 0.75, 0.5)
        elif index == last and not cut:
            turns = (0.5, 0.25, 0)
        for turn in turns:
            for side, sign in ((left, 1), (right, -1)):
                bend = angle + sign * turn * math.pi
                side.append((x + math.cos(bend) * width / 2, y + math.sin(bend) * width / 2))
    return left + right[::-1]


__all__ = ["NEUTRAL", "Canvas", "Colour", "Point", "smooth", "symmetric", "tube"]
