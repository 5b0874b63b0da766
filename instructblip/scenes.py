"""Composes pictures of the embedded model's world from the icon atlas, offline and without torch.

The same function makes training pictures, evaluation pictures and the page's "New scene".
A scene is 1 to 5 objects (icons, coloured shapes, letters, digits, a few unknown drawings) that
hardly overlap, on a plain, gradient, textured or photo-like background.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from instructblip import drawn_shapes
from instructblip.backgrounds import background, light_ground
from instructblip.colours import COLOURS, RGB, ground_of, near_name, shade
from instructblip.drawn_shapes import SHAPES, SIMPLE

__all__ = [
    "ATLAS", "COLOURS", "DIGITS", "LETTERS", "SHAPES", "SIZE", "UNKNOWN", "Atlas", "Scene", "Thing",
    "atlas", "background", "compose", "phrase",
]  # fmt: skip
ATLAS = Path(__file__).resolve().parent.parent / "assets" / "atlas"
SIZE = 112  # pixels, the embedded model's picture size
COUNTS = (0.18, 0.25, 0.27, 0.18, 0.12)  # shares of scenes with 1..5 objects
KIND_SHARES = {"shape": 0.28, "glyph": 0.17, "unknown": 0.12, "icon": 0.43}
REPEAT = 0.22  # chance that an object has the name of an earlier one
SIZES = ((0.32, 0.80), (0.27, 0.60), (0.26, 0.52), (0.25, 0.42), (0.25, 0.36))  # by count
FLAT_SIZE = 64  # pixels of a flat picture before it is scaled up
FLAT_SIZES = (0.10, 0.75)  # of the one shape of a flat picture
LARGE = (0.80, 0.90)  # one thing in eight scenes of one
SMALL = 0.14  # share of shapes that are made smaller than their place
CUT, CUT_MOST = 0.10, 0.20  # share of lone shapes that the border cuts, and how much of them
BORDER = 0.03  # centres stay this far from the borders of the 3x3 cells
LETTERS = "ABCDEFGHKLMNPRSTUXYZ"
DIGITS = "23456789"
UNKNOWN = "unknown thing"
Box = tuple[float, float, float, float]
Touch = Callable[[random.Random, Image.Image], Image.Image]
_MASK = 144  # pixels of a cached letter or digit mask
_COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. ``box`` is (left, top, right, bottom) in 0..1 of the picture's sides.

    A shape's box fits what is visible of it, others' is their tile, which has empty margins:
    ``seen`` is the width and height of what is visible.
    """

    name: str
    kind: str  # animal, fruit, ..., shape, letter, digit, unknown
    colour: str | None
    box: Box
    seen: tuple[float, float]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def area(self) -> float:
        """Of the rectangle around what is visible: "bigger" is judged by it."""
        return self.seen[0] * self.seen[1]

    @property
    def cell(self) -> tuple[int, int]:
        """(column, row) of the 3x3 cell that holds the centre."""
        x, y = self.centre
        return min(int(x * 3), 2), min(int(y * 3), 2)


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and the truth about it.

    ``ground`` is the background's colour where it is plain, or nearly, and clearly of one name.
    """

    image: Image.Image
    objects: tuple[Thing, ...]
    style: str
    ground: str | None = None


@dataclass(frozen=True, slots=True)
class Atlas:
    """Icon tiles of every style: ``tiles[style][name]`` is a list of RGBA pictures."""

    classes: dict[str, str]
    test_styles: tuple[str, ...]  # never trained on
    tiles: dict[str, dict[str, list[Image.Image]]]

    @property
    def test_style(self) -> str:
        """The first of :attr:`test_styles`."""
        return self.test_styles[0]

    @property
    def train_styles(self) -> tuple[str, ...]:
        return tuple(s for s in self.tiles if s not in self.test_styles)


@functools.lru_cache(maxsize=1)
def atlas(folder: Path = ATLAS) -> Atlas:
    """The shipped atlas, read once."""
    index = json.loads((folder / "index.json").read_text("utf-8"))
    tile = index["tile"]
    tiles: dict[str, dict[str, list[Image.Image]]] = {}
    for style, entry in index["styles"].items():
        sheet = Image.open(folder / f"{style}.webp").convert("RGBA")
        columns = sheet.width // tile
        group = tiles.setdefault(style, {})
        for i, name in enumerate(entry["tiles"]):
            x, y = i % columns * tile, i // columns * tile
            group.setdefault(name, []).append(sheet.crop((x, y, x + tile, y + tile)))
    return Atlas(index["classes"], tuple(index["test_styles"]), tiles)


def compose(
    rng: random.Random | int,
    style: str | None = None,
    size: int = SIZE,
    count: int | None = None,
    touch: Touch | None = None,
    only: str | None = None,
    flat: bool = False,
) -> Scene:
    """A fresh scene; the same seed gives the same scene.

    Args:
        rng: a generator or a seed.
        style: one drawing style for all icons; ``None`` mixes the training styles.
        size: side of the picture in pixels.
        count: number of objects, else drawn from :data:`COUNTS`.
        touch: changes each icon before it is drawn (training's augmentation).
        only: a group of :data:`KIND_SHARES` that all objects come from.
        flat: plain shapes (one, unless ``count`` says more) on a light ground, drawn at
            :data:`FLAT_SIZE` pixels and scaled up, as many programs and public sets draw.
    """
    rng = random.Random(rng) if isinstance(rng, int) else rng
    if flat:
        count = count or 1
    count = count or rng.choices(range(1, 6), COUNTS)[0]
    book = atlas()
    scene_style = style or rng.choice(book.train_styles)
    image = light_ground(rng, FLAT_SIZE) if flat else background(rng, size)
    ground = ground_of(image)
    boxes = _place(rng, count, flat)
    things: list[Thing] = []
    for box in boxes:
        look = scene_style if style or rng.random() < 0.7 else rng.choice(book.train_styles)
        name, kind = _flat_shape(rng, box) if flat else _choose(rng, things, book, only)
        if kind in ("shape", "letter", "digit"):
            things.append(_plain(rng, image, box, name, kind, count == 1, flat))
        else:
            things.append(_icon(rng, image, box, name, kind, book, look, touch))
    if flat:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return Scene(image, tuple(things), scene_style, ground)


def _place(rng: random.Random, count: int, flat: bool) -> list[Box]:
    """``count`` square boxes that hardly overlap, centres off the cell borders."""
    while True:
        boxes: list[Box] = []
        for _ in range(count * 30):
            sizes = LARGE if count == 1 and rng.random() < 0.12 else SIZES[count - 1]
            side = rng.uniform(*(FLAT_SIZES if flat and count == 1 else sizes))
            x, y = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
            if not _off_borders(x + side / 2, y + side / 2):
                continue
            box = (x, y, x + side, y + side)
            if all(_overlap(box, other) < 0.06 for other in boxes):
                boxes.append(box)
                if len(boxes) == count:
                    return boxes


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Shared area over the smaller box's area."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    small = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return wide * high / small


def _off_borders(x: float, y: float, margin: float = BORDER) -> bool:
    """Whether a centre is clear of the borders of the 3x3 cells."""
    return all(abs(c - b) >= margin for c in (x, y) for b in (1 / 3, 2 / 3))


def _plain(
    rng: random.Random,
    image: Image.Image,
    box: Box,
    name: str,
    kind: str,
    alone: bool,
    flat: bool,
) -> Thing:
    """Paint a shape, letter or digit in a named colour into ``box`` and say what it is."""
    size = image.width
    left, top, side = _pixels(box, size)
    right, bottom = min(size, left + side), min(size, top + side)
    under = image.resize((8, 8), Image.Resampling.BOX, (left, top, right, bottom), reducing_gap=1)
    colour, rgb = _colour(rng, np.asarray(under, dtype=np.float32).reshape(-1, 3).mean(0))
    if kind != "shape":
        mask = _mask(name, rng.randrange(3)).resize(
            (side, side), Image.Resampling.BILINEAR, reducing_gap=2.0
        )
        mask = mask.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
        image.paste(rgb, (left, top), mask)
        return Thing(name, kind, colour, box, _seen(mask, size))
    if rng.random() < (0 if flat else SMALL):
        least = 0.085 if name in SIMPLE else 0.16
        smaller = round(size * rng.uniform(least, max(least + 0.05, (box[2] - box[0]) * 0.7)))
    else:
        smaller = round(side * rng.uniform(0.82, 1.0))
    smaller = max(6, min(side, smaller))
    left, top = left + (side - smaller) // 2, top + (side - smaller) // 2
    if alone and rng.random() < (2 * CUT if flat else CUT):
        left, top = _over_the_border(rng, left, top, smaller, size)
    how = drawn_shapes.style(rng, name, smaller, flat)
    drawn = drawn_shapes.paint(rng, image, (left, top), smaller, name, rgb, how)
    x0, y0, x1, y1 = (min(max(v, 0), size) / size for v in drawn)
    return Thing(name, kind, colour, (x0, y0, x1, y1), (x1 - x0, y1 - y0))


def _over_the_border(
    rng: random.Random, left: int, top: int, side: int, size: int
) -> tuple[int, int]:
    """A place from which a shape reaches over one border, its visible centre still in its cell."""
    out = round(side * rng.uniform(0.05, CUT_MOST))
    across = -out if rng.random() < 0.5 else size - side + out
    if rng.random() < 0.5:
        moved, visible = (
            (across, top),
            ((max(across, 0) + min(across + side, size)) / 2, top + side / 2),
        )
    else:
        moved, visible = (
            (left, across),
            (left + side / 2, (max(across, 0) + min(across + side, size)) / 2),
        )
    return moved if _off_borders(visible[0] / size, visible[1] / size, 2 * BORDER) else (left, top)


def _icon(
    rng: random.Random,
    image: Image.Image,
    box: Box,
    name: str,
    kind: str,
    book: Atlas,
    style: str,
    touch: Touch | None,
) -> Thing:
    """Paint an icon into ``box`` and say what it is."""
    size = image.width
    left, top, side = _pixels(box, size)
    group = book.tiles[style]
    if kind == "unknown" and "?" not in group:
        group = book.tiles[rng.choice([s for s in book.train_styles if "?" in book.tiles[s]])]
    tile = rng.choice(group["?" if kind == "unknown" else name])
    if touch is not None:
        tile = touch(rng, tile)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    tile = tile.resize((side, side), Image.Resampling.BICUBIC)
    if rng.random() < 0.4:
        tile = tile.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
    image.paste(tile, (left, top), tile)
    return Thing(name, kind, None, box, _seen(tile.getchannel("A"), size))


def _pixels(box: Box, size: int) -> tuple[int, int, int]:
    """Left, top and side of a square box in pixels."""
    return round(box[0] * size), round(box[1] * size), max(8, round((box[2] - box[0]) * size))


def _seen(coverage: Image.Image, size: int) -> tuple[float, float]:
    """Width and height of the covered part, in 0..1 of the picture's side."""
    left, top, right, bottom = drawn_shapes.extent(coverage)
    return (right - left) / size, (bottom - top) / size


def _flat_shape(rng: random.Random, box: Box) -> tuple[str, str]:
    """Mostly what most programs draw, and only that where it is small."""
    simple = box[2] - box[0] < 0.2 or rng.random() < 0.6
    return rng.choice(SIMPLE if simple else SHAPES), "shape"


def _choose(
    rng: random.Random, earlier: list[Thing], book: Atlas, only: str | None
) -> tuple[str, str]:
    """(name, kind) of the next object; sometimes a second one of an earlier name."""
    known = [t for t in earlier if t.kind != "unknown"]
    if known and rng.random() < REPEAT:
        again = rng.choice(known)
        return again.name, again.kind
    group = only or rng.choices(list(KIND_SHARES), list(KIND_SHARES.values()))[0]
    if group == "shape":
        return rng.choice(SHAPES), "shape"
    if group == "glyph":
        if rng.random() < 0.6:
            return f"letter {rng.choice(LETTERS)}", "letter"
        return f"number {rng.choice(DIGITS)}", "digit"
    if group == "unknown":
        return UNKNOWN, "unknown"
    name = rng.choice(list(book.classes))
    return name, book.classes[name]


def _colour(rng: random.Random, under: np.ndarray) -> tuple[str, RGB]:
    """A named colour in a shade that stands out from the mean colour ``under`` it."""
    below = near_name(under)
    while True:
        name = rng.choice(_COLOUR_NAMES)
        for _ in range(4):
            rgb = shade(rng, name)
            if (
                name != below
                and sum(abs(a - float(b)) for a, b in zip(rgb, under, strict=True)) > 110
            ):
                return name, rgb


@functools.lru_cache(maxsize=256)
def _mask(name: str, variant: int) -> Image.Image:
    """Coverage of a letter or digit, 8 bits, ``_MASK`` pixels square, three variants of each."""
    mask = Image.new("L", (_MASK, _MASK))
    font = ImageFont.load_default(_MASK * 0.95)
    ImageDraw.Draw(mask).text(
        (_MASK / 2, _MASK / 2), name[-1], 255, font, "mm", stroke_width=(2, 5, 9)[variant]
    )
    return mask


def phrase(thing: Thing, article: bool = True) -> str:
    """How the model names a thing: ``a cat``, ``a red circle``, ``a blue letter A``."""
    if thing.kind == "unknown":
        return "something I do not know"
    words = thing.name if thing.colour is None else f"{thing.colour} {thing.name}"
    if thing.name == "glasses":
        return words
    if not article:
        return words
    return ("an " if words[0].lower() in "aeiou" else "a ") + words
