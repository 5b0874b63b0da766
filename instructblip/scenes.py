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

ATLAS = Path(__file__).resolve().parent.parent / "assets" / "atlas"
SIZE = 112  # pixels, the embedded model's picture size
COUNTS = (0.18, 0.25, 0.27, 0.18, 0.12)  # shares of scenes with 1..5 objects
KIND_SHARES = {"shape": 0.28, "glyph": 0.17, "unknown": 0.12, "icon": 0.43}
REPEAT = 0.22  # chance that an object has the name of an earlier one
SIZES = ((0.32, 0.80), (0.27, 0.60), (0.26, 0.52), (0.25, 0.42), (0.25, 0.36))  # by count
VISIBLE = 64  # coverage of 255 from which a pixel counts as part of a thing
BORDER = 0.03  # centres stay this far from the borders of the 3x3 cells
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30), "orange": (250, 135, 15), "yellow": (250, 225, 30),
    "green": (40, 160, 55), "blue": (35, 80, 220), "purple": (130, 45, 175),
    "pink": (250, 130, 185), "brown": (120, 72, 35), "black": (15, 15, 15),
    "white": (250, 250, 250), "gray": (135, 135, 135),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "arrow")
LETTERS = "ABCDEFGHKLMNPRSTUXYZ"
DIGITS = "23456789"
UNKNOWN = "unknown thing"
Touch = Callable[[random.Random, Image.Image], Image.Image]
_VISIBLE_TABLE = [255 * (v >= VISIBLE) for v in range(256)]
_MASK = 144  # pixels of a cached shape or glyph mask


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. ``box`` is (left, top, right, bottom) in 0..1 of the picture's sides.

    ``seen`` is the width and height of what is visible of it: a tile has empty margins.
    """

    name: str
    kind: str  # animal, fruit, ..., shape, letter, digit, unknown
    colour: str | None
    box: tuple[float, float, float, float]
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
    """A picture and the truth about it."""

    image: Image.Image
    objects: tuple[Thing, ...]
    style: str


@dataclass(frozen=True, slots=True)
class Atlas:
    """Icon tiles of every style: ``tiles[style][name]`` is a list of RGBA pictures."""

    classes: dict[str, str]
    test_style: str
    tiles: dict[str, dict[str, list[Image.Image]]]

    @property
    def train_styles(self) -> tuple[str, ...]:
        return tuple(s for s in self.tiles if s != self.test_style)


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
    return Atlas(index["classes"], index["test_style"], tiles)


def compose(
    rng: random.Random | int,
    style: str | None = None,
    size: int = SIZE,
    count: int | None = None,
    touch: Touch | None = None,
    only: str | None = None,
) -> Scene:
    """A fresh scene; the same seed gives the same scene.

    Args:
        rng: a generator or a seed.
        style: one drawing style for all icons; ``None`` mixes the training styles.
        size: side of the picture in pixels.
        count: number of objects, else drawn from :data:`COUNTS`.
        touch: changes each icon before it is drawn (training's augmentation).
        only: a group of :data:`KIND_SHARES` that all objects come from.
    """
    rng = random.Random(rng) if isinstance(rng, int) else rng
    count = count or rng.choices(range(1, 6), COUNTS)[0]
    book = atlas()
    scene_style = style or rng.choice(book.train_styles)
    image = background(rng, size)
    boxes = _place(rng, count)
    things: list[Thing] = []
    for box in boxes:
        look = scene_style if style or rng.random() < 0.7 else rng.choice(book.train_styles)
        things.append(_draw(rng, image, box, look, things, book, touch, only))
    return Scene(image, tuple(things), scene_style)


def background(rng: random.Random, size: int) -> Image.Image:
    """A plain, gradient, textured or photo-like background, RGB."""
    draw = np.random.default_rng(rng.getrandbits(32))
    how = rng.random()
    low, high = (150, 256) if rng.random() < 0.6 else (0, 256)
    one = tuple(int(v) for v in draw.integers(low, high, 3))
    if how < 0.4:
        return Image.new("RGB", (size, size), one)
    if how < 0.6:  # gradient between two or four corner colours
        corners = draw.integers(low, high, (2, 2, 3), dtype=np.uint8)
        if rng.random() < 0.5:
            corners[1] = corners[0]
        return Image.fromarray(corners).resize((size, size), Image.Resampling.BILINEAR)
    if how < 0.8:  # fine noise or coarse checks around one colour
        cells = rng.choice((size, size // 2, size // 4, 8))
        noise = draw.normal(0, rng.uniform(4, 22), (cells, cells, 1 if rng.random() < 0.5 else 3))
        grain = np.clip(np.array(one) + noise, 0, 255).astype(np.uint8)
        return Image.fromarray(grain).resize((size, size), Image.Resampling.BILINEAR)
    cells = rng.choice((3, 4, 6, 9))  # blurred blobs, like a photograph out of focus
    blobs = np.array(one) + draw.normal(0, rng.uniform(15, 45), (cells, cells, 3))
    picture = Image.fromarray(np.clip(blobs, 0, 255).astype(np.uint8))
    return picture.resize((size, size), Image.Resampling.BICUBIC)


def _place(rng: random.Random, count: int) -> list[tuple[float, float, float, float]]:
    """``count`` square boxes that hardly overlap, centres off the cell borders."""
    while True:
        boxes: list[tuple[float, float, float, float]] = []
        for _ in range(count * 30):
            side = rng.uniform(*SIZES[count - 1])
            x, y = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
            centre = (x + side / 2, y + side / 2)
            if any(abs(c - b) < BORDER for c in centre for b in (1 / 3, 2 / 3)):
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


def _draw(
    rng: random.Random,
    image: Image.Image,
    box: tuple[float, float, float, float],
    style: str,
    earlier: list[Thing],
    book: Atlas,
    touch: Touch | None,
    only: str | None,
) -> Thing:
    """Paint one object into ``box`` and say what it is."""
    size = image.width
    pixels = (round(box[0] * size), round(box[1] * size))
    side = max(8, round((box[2] - box[0]) * size))
    name, kind = _choose(rng, earlier, book, only)
    if kind in ("shape", "letter", "digit"):
        under = np.asarray(image.resize((8, 8), Image.Resampling.BOX, (
            pixels[0], pixels[1], min(size, pixels[0] + side), min(size, pixels[1] + side),
        )), dtype=np.float32).reshape(-1, 3).mean(0)  # fmt: skip
        colour, rgb = _colour(rng, under)
        mask = _mask(name, rng.randrange(3)).rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
        mask = mask.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        image.paste(rgb, pixels, mask)
        return Thing(name, kind, colour, box, _seen(mask, size))
    group = book.tiles[style]
    if kind == "unknown" and "?" not in group:
        group = book.tiles[rng.choice([s for s in book.train_styles if "?" in book.tiles[s]])]
    tile = rng.choice(group["?" if kind == "unknown" else name])
    if touch is not None:
        tile = touch(rng, tile)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.4:
        tile = tile.rotate(rng.uniform(-15, 15), Image.Resampling.BILINEAR)
    tile = tile.resize((side, side), Image.Resampling.BICUBIC)
    image.paste(tile, pixels, tile)
    return Thing(name, kind, None, box, _seen(tile.getchannel("A"), size))


def _seen(coverage: Image.Image, size: int) -> tuple[float, float]:
    """Width and height of the covered part, in 0..1 of the picture's side."""
    box = coverage.point(_VISIBLE_TABLE).getbbox() or (0, 0, *coverage.size)
    return (box[2] - box[0]) / size, (box[3] - box[1]) / size


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


def _colour(rng: random.Random, under: np.ndarray) -> tuple[str, tuple[int, int, int]]:
    """A named colour, varied a little, that stands out from the mean colour ``under`` it."""
    while True:
        name = rng.choice(list(COLOURS))
        spread = 6 if name in ("white", "black") else 14
        rgb = tuple(min(255, max(0, v + rng.randint(-spread, spread))) for v in COLOURS[name])
        if float(np.abs(np.array(rgb) - under).sum()) > 120:
            return name, (rgb[0], rgb[1], rgb[2])


@functools.lru_cache(maxsize=256)
def _mask(name: str, variant: int) -> Image.Image:
    """Coverage of a shape or glyph, 8 bits, ``_MASK`` pixels square, three variants of each."""
    mask = Image.new("L", (_MASK, _MASK))
    pen = ImageDraw.Draw(mask)
    if name in SHAPES:
        _shape(pen, name, variant)
        return mask
    font = ImageFont.load_default(_MASK * 0.95)
    pen.text((_MASK / 2, _MASK / 2), name[-1], 255, font, "mm", stroke_width=(2, 5, 9)[variant])
    return mask


def _shape(pen: ImageDraw.ImageDraw, name: str, variant: int) -> None:
    m, c = _MASK, _MASK / 2
    r = c * (0.93, 0.86, 0.8)[variant]
    around = (c - r, c - r, c + r, c + r)
    if name == "circle":
        pen.ellipse(around, 255)
    elif name == "ring":
        pen.ellipse(around, 255)
        inner = r * (0.5, 0.6, 0.66)[variant]
        pen.ellipse((c - inner, c - inner, c + inner, c + inner), 0)
    elif name == "square":
        q = r * 0.88
        pen.rectangle((c - q, c - q, c + q, c + q), fill=255)
    elif name == "cross":
        w = r * (0.26, 0.33, 0.4)[variant]
        pen.rectangle((c - r, c - w, c + r, c + w), fill=255)
        pen.rectangle((c - w, c - r, c + w, c + r), fill=255)
    elif name == "heart":
        t = np.linspace(0, 2 * np.pi, 60)
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        pen.polygon([(c + r * a / 17, c - r * b / 17) for a, b in zip(x, y, strict=True)], 255)
    else:
        pen.polygon(_polygon(name, c, r, m, variant), 255)


def _polygon(name: str, c: float, r: float, m: int, variant: int) -> list[tuple[float, float]]:
    if name == "triangle":
        return [(c, c - r), (c + r, c + 0.8 * r), (c - r, c + 0.8 * r)]
    if name == "diamond":
        w = r * (0.6, 0.7, 0.8)[variant]
        return [(c, c - r), (c + w, c), (c, c + r), (c - w, c)]
    if name == "star":
        angles = [np.pi * k / 5 - np.pi / 2 for k in range(10)]
        radii = [r if k % 2 == 0 else r * (0.38, 0.45, 0.5)[variant] for k in range(10)]
        return [
            (c + s * float(np.cos(a)), c + s * float(np.sin(a)))
            for a, s in zip(angles, radii, strict=True)
        ]
    w = r * (0.22, 0.3, 0.35)[variant]  # arrow to the right, or to the left
    points = [
        (c - r, c - w), (c + 0.1 * r, c - w), (c + 0.1 * r, c - 0.75 * r), (c + r, c),
        (c + 0.1 * r, c + 0.75 * r), (c + 0.1 * r, c + w), (c - r, c + w),
    ]  # fmt: skip
    return [(m - x, y) for x, y in points] if variant == 1 else points


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
