"""Plain shapes as people and programs draw them: outlines of many proportions, several styles.

An outline is an array [n, 2] of points around (0, 0), y downwards, scaled so that the shape
fills the square from -1 to 1 in its longer direction.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SHAPES = (
    "circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "arrow",
    "rectangle", "oval", "pentagon", "hexagon",
)  # fmt: skip
SIMPLE = ("circle", "square", "triangle", "rectangle")  # known at a twelfth of the side
LONG = (1.35, 3.0)  # a rectangle's longer side over the shorter; an oval's up to 2.4
RGB = tuple[int, int, int]
VISIBLE = 64  # coverage of 255 from which a pixel counts as part of a thing
_ROUND = np.stack(
    [f(np.linspace(0, 2 * np.pi, 48, endpoint=False)) for f in (np.cos, np.sin)], -1
)  # fmt: skip
# how far a shape may be turned, in degrees: a square turned by 45 is a diamond
_TURNS = {
    "square": 18, "rectangle": 25, "triangle": 25, "oval": 25, "diamond": 8, "cross": 12,
    "star": 18, "heart": 15, "arrow": 15, "pentagon": 20, "hexagon": 30,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """How a shape is painted: ``fill`` is the colour of the truth."""

    smooth: bool = True  # antialiased
    line: float = 0.0  # width of a line along the outline, over the shape's side; 0: no line
    ink: RGB | None = None  # the line's colour where it is not the fill's
    hollow: bool = False  # the line only, nothing inside
    shading: float = 0.0  # strength of a gradient over the fill, in 0..1
    grain: float = 0.0  # standard deviation of noise over the fill, in 0..255
    wobble: float = 0.0  # how unsteady the hand is, over the shape's side; 0: a program's line


def outline(rng: random.Random, name: str) -> np.ndarray:
    """A shape's points in its own upright position; a ring's are its outer circle's."""
    if name in ("circle", "ring"):
        return _ROUND
    if name in ("rectangle", "oval"):
        long = rng.uniform(LONG[0], LONG[1] if name == "rectangle" else 2.4)
        base = _ROUND if name == "oval" else np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        return base * ((1, 1 / long) if rng.random() < 0.5 else (1 / long, 1))
    if name == "square":
        return np.array([(-1.0, -1), (1, -1), (1, 1), (-1, 1)])
    if name == "triangle":
        return _triangle(rng)
    if name in ("pentagon", "hexagon"):
        return _regular(5 if name == "pentagon" else 6)
    if name == "star":
        points = _regular(10)
        points[1::2] *= rng.uniform(0.38, 0.52)
        return points
    if name == "diamond":
        w = rng.uniform(0.55, 0.95)
        return np.array([(0, -1), (w, 0), (0, 1), (-w, 0)])
    if name == "heart":
        t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([16 * np.sin(t) ** 3, -y], -1)
    w = rng.uniform(0.22, 0.4)
    if name == "cross":
        quarter = [(-w, -1), (w, -1), (w, -w)]
        return np.array([p for k in range(4) for p in _quarters(quarter, k)])
    w, neck, head = rng.uniform(0.18, 0.35), rng.uniform(-0.1, 0.3), rng.uniform(0.65, 0.9)
    points = np.array(
        [(-1, -w), (neck, -w), (neck, -head), (1, 0), (neck, head), (neck, w), (-1, w)]
    )
    return np.array(_quarters(points.tolist(), rng.choices(range(4), (4, 2, 4, 2))[0]))


def _triangle(rng: random.Random) -> np.ndarray:
    """Equilateral, isosceles, right-angled or obtuse; mostly with its tip upwards."""
    how, flat = rng.random(), rng.uniform(0.6, 1.3)
    tip = 0.0 if how < 0.6 else rng.choice((-1.0, 1.0)) if how < 0.8 else rng.uniform(-1.25, 1.25)
    high = math.sqrt(3) if how < 0.25 else 2 * flat
    points = [(-1.0, high / 2), (1.0, high / 2), (tip, -high / 2)]
    turn = rng.random()
    return np.array(
        _quarters(points, 0 if turn < 0.78 else 2 if turn < 0.9 else rng.choice((1, 3)))
    )


def _regular(corners: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(corners) / corners - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def _quarters(points: list[tuple[float, float]], count: int) -> list[tuple[float, float]]:
    """Points turned by quarters of a circle."""
    for _ in range(count):
        points = [(-y, x) for x, y in points]
    return points


def placed(rng: random.Random, name: str, steady: bool = False) -> np.ndarray:
    """An outline as it will be drawn: turned a little (or not: ``steady``), centred, fitted."""
    points = outline(rng, name)
    limit = _TURNS.get(name, 0)
    if limit and not steady and rng.random() < 0.55:
        angle = math.radians(rng.uniform(-limit, limit))
        cos, sin = math.cos(angle), math.sin(angle)
        points = points @ np.array([(cos, sin), (-sin, cos)])
    return fitted(points)


def fitted(points: np.ndarray) -> np.ndarray:
    """The same outline in the middle of the square from -1 to 1, as large as it can be."""
    low, high = points.min(0), points.max(0)
    return (points - (low + high) / 2) * (2 / float((high - low).max()))


def unsteady(rng: random.Random, points: np.ndarray, wobble: float) -> np.ndarray:
    """An outline as a free hand draws it: many points, each off by a slow and a quick tremor."""
    around = np.vstack([points, points[:1]])
    length = np.concatenate([[0], np.hypot(*np.diff(around, axis=0).T).cumsum()])
    steps = np.linspace(0, length[-1], 56)
    line = np.stack([np.interp(steps, length, around[:, k]) for k in (0, 1)], -1)
    phase = np.linspace(0, 2 * np.pi, 56)
    for rate in (1, 2, 3, 5):
        size = 2 * wobble / rate
        for k in (0, 1):
            line[:, k] += rng.uniform(-size, size) * np.sin(rate * phase + rng.uniform(0, 6.28))
    draw = np.random.default_rng(rng.getrandbits(32))
    line[1:-1] += draw.normal(0, wobble / 4, (54, 2))
    return line


def style(rng: random.Random, name: str, side: int, flat: bool = False) -> Style:
    """A way of painting a shape that is ``side`` pixels large."""
    # without it a small circle is a square
    smooth = rng.random() < (0.25 if flat else 0.85) or (side < 14 and name in ("circle", "oval"))
    draw = rng.random()
    if flat or side < 20 or draw < 0.46:
        return Style(smooth)
    if draw < 0.62:
        ink = rng.choice(((0, 0, 0), (20, 20, 20), (60, 60, 60), (255, 255, 255), None))
        ink = ink or (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        return Style(smooth, rng.uniform(0.02, 0.035 if rng.random() < 0.5 else 0.08), ink)
    # a thick line around nothing makes a circle a ring
    thick = 0.05 if name in ("circle", "oval") else 0.09
    if draw < 0.74:
        return Style(smooth, rng.uniform(0.025, thick), hollow=name != "ring")
    if draw < 0.82:
        return Style(smooth, shading=rng.uniform(0.05, 0.16))
    if draw < 0.88:
        return Style(smooth, grain=rng.uniform(3, 12))
    hollow = rng.random() < 0.55 and name != "ring"
    ink = None if hollow or rng.random() < 0.5 else (rng.randrange(70),) * 3
    return Style(True, rng.uniform(0.025, thick), ink, hollow, wobble=rng.uniform(0.015, 0.045))


def paint(
    rng: random.Random,
    image: Image.Image,
    corner: tuple[int, int],
    side: int,
    name: str,
    rgb: RGB,
    how: Style,
) -> tuple[int, int, int, int]:
    """Paint a shape into a square of ``side`` pixels at ``corner``, which may lie partly outside.

    Returns left, top, right and bottom of what was painted, in pixels, also where it is cut off.
    """
    scale = (3 if side < 48 else 2) if how.smooth else 1
    wide = side * scale
    points = placed(rng, name)
    line = max(how.line * wide, 1.3 * scale) if how.line else 0.0
    if how.wobble:
        points = fitted(unsteady(rng, points, how.wobble))
    half = (wide - 1) / 2
    corners = [tuple(p) for p in (points * (half - line / 2) + half).tolist()]
    mask = Image.new("L", (wide, wide))
    pen = ImageDraw.Draw(mask)
    if not how.hollow:
        _fill(pen, name, how, corners, 255)
    if name == "ring":
        hole = points * (half - line / 2) * rng.uniform(0.5, 0.68) + half
        _fill(pen, name, how, [tuple(p) for p in hole.tolist()], 0)
    edge = None
    if line and how.ink is not None:
        edge = Image.new("L", (wide, wide))
        _trace(ImageDraw.Draw(edge), corners, line)
    elif line:
        _trace(pen, corners, line)
    if scale > 1:
        mask, edge = mask.reduce(scale), edge and edge.reduce(scale)
    image.paste(_filling(rng, rgb, side, how), corner, mask)
    if edge is not None:
        image.paste(how.ink or rgb, corner, edge)
    left, top, right, bottom = extent(Image.composite(edge, mask, edge) if edge else mask)
    return corner[0] + left, corner[1] + top, corner[0] + right, corner[1] + bottom


def extent(coverage: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is visible of an 8-bit mask; all of it where nothing is."""
    there = np.asarray(coverage) >= VISIBLE
    rows, columns = np.flatnonzero(there.any(1)), np.flatnonzero(there.any(0))
    if not len(rows):
        return (0, 0, *coverage.size)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _fill(
    pen: ImageDraw.ImageDraw, name: str, how: Style, corners: list[tuple[float, ...]], value: int
) -> None:
    """Everything inside an outline; a program's circle is rounder than its 48 points."""
    if name in ("circle", "ring") and not how.wobble:
        xs, ys = zip(*corners, strict=True)
        pen.ellipse((min(xs), min(ys), max(xs), max(ys)), value)
    else:
        pen.polygon(corners, value)  # type: ignore[arg-type]


def _trace(pen: ImageDraw.ImageDraw, corners: list[tuple[float, ...]], width: float) -> None:
    """A closed line along an outline."""
    pen.line([*corners, *corners[:2]], 255, max(1, round(width)), "curve")  # type: ignore[list-item]


def _filling(rng: random.Random, rgb: RGB, side: int, how: Style) -> RGB | Image.Image:
    """The fill's colour, or a square of it with a gradient or grain."""
    if how.shading:
        light, dark = 1 + how.shading / 2, 1 - how.shading
        ends = np.array([[light, light], [dark, dark]]) if rng.random() < 0.6 else (
            np.array([[light, 1.0], [1.0, dark]])
        )  # fmt: skip
        field = np.clip(ends[..., None] * np.array(rgb), 0, 255).astype(np.uint8)
        return Image.fromarray(field).resize((side, side), Image.Resampling.BILINEAR)
    if how.grain:
        draw = np.random.default_rng(rng.getrandbits(32))
        noise = draw.normal(0, how.grain, (side, side, 1)) + np.array(rgb)
        filled = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
        return filled if rng.random() < 0.5 else filled.filter(ImageFilter.BoxBlur(1))
    return rgb
