"""Changes of icons and pictures in training, against the fall on drawing styles never seen."""

from __future__ import annotations

import dataclasses
import io
import random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from instructblip.colours import share_of
from instructblip.scenes import BORDER, RGB, Box, Scene, Thing

SCANNED, TILTED, FRAMED = 0.05, 0.05, 0.04  # shares of the pictures that touch_scene changes so
TILT = 2.8  # degrees; a sheet of paper laid on the glass, a phone held by hand
_CELLS = 14


def touch_icon(rng: random.Random, tile: Image.Image) -> Image.Image:
    """An RGBA icon as another hand might have drawn it: colours, outline, shading, proportions."""
    alpha, colour = tile.getchannel("A"), tile.convert("RGB")
    if rng.random() < 0.6:
        colour = _tint(rng, colour)
    if rng.random() < 0.15:
        colour = ImageOps.posterize(colour, rng.choice((2, 3, 4)))
    if rng.random() < 0.15:
        colour = colour.filter(ImageFilter.ModeFilter(rng.choice((3, 5))))
    if rng.random() < 0.15:
        colour = colour.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.4)))
    if rng.random() < 0.3:
        colour, alpha = _outline(rng, colour, alpha)
    colour.putalpha(alpha)
    return _stretch(rng, colour) if rng.random() < 0.35 else colour


def touch_picture(rng: random.Random, image: Image.Image) -> Image.Image:
    """A whole picture as it may come from a screenshot or a chat: softer, darker, compressed."""
    draw = rng.random()
    if draw < 0.08:
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.9)))
    if draw < 0.2:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=rng.randrange(35, 90))
        return Image.open(out).convert("RGB")
    if draw < 0.28:
        return ImageEnhance.Brightness(image).enhance(rng.uniform(0.87, 1.12))
    return image


def touch_scene(rng: random.Random, scene: Scene) -> Scene:
    """A scene as it may come from a scanner, a camera or a screenshot; its truth stays true.

    ``ground`` is given up where the change leaves the background without that name.
    """
    if rng.random() < TILTED:
        scene = tilted(rng, scene)
    if rng.random() < SCANNED:
        scene = dataclasses.replace(scene, image=_scanned(rng, scene))
    scene = dataclasses.replace(scene, image=touch_picture(rng, scene.image))
    if scene.ground and not _ground_holds(scene):
        scene = dataclasses.replace(scene, ground=None)
    if rng.random() < FRAMED:
        scene = dataclasses.replace(scene, image=_framed(rng, scene))
    return scene


def tilted(rng: random.Random, scene: Scene) -> Scene:
    """The picture turned by up to :data:`TILT` degrees and seen slightly from the side.

    Things move with it; where one would come onto a border of the 3x3 cells nothing is changed.
    """
    turn = np.deg2rad(rng.uniform(-TILT, TILT))
    lean = [rng.uniform(-0.05, 0.05) for _ in range(2)]
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    # around the picture's middle: a rotation, then a division by 1 + lean . (x, y)
    back = np.linalg.inv(np.array([(cos, -sin, 0), (sin, cos, 0), (*lean, 1)]))
    forth = np.linalg.inv(back)
    things = [_moved(thing, forth) for thing in scene.objects]
    near = any(abs(c - b) < BORDER * 0.7 for t in things for c in t.centre for b in (1 / 3, 2 / 3))
    if near:
        return scene
    size = scene.image.width
    # PIL asks, in pixels, where each pixel of the result comes from
    pixels = np.array([(size, 0, size / 2), (0, size, size / 2), (0, 0, 1)])
    ask = pixels @ back @ np.linalg.inv(pixels)
    edge = scene.image.getpixel((0, 0)) if rng.random() < 0.5 else (rng.randrange(256),) * 3
    image = scene.image.transform(
        (size, size), Image.Transform.PERSPECTIVE, (ask / ask[2, 2]).flatten()[:8].tolist(),
        Image.Resampling.BILINEAR, fillcolor=edge,
    )  # fmt: skip
    return dataclasses.replace(scene, image=image, objects=tuple(things))


def _moved(thing: Thing, forth: np.ndarray) -> Thing:
    """The thing where a projection of the picture, around its middle, puts it."""

    def to(x: float, y: float) -> tuple[float, float]:
        u, v, w = forth @ (x - 0.5, y - 0.5, 1)
        return min(max(float(u / w) + 0.5, 0.0), 1.0), min(max(float(v / w) + 0.5, 0.0), 1.0)

    left, top, right, bottom = thing.box
    x, y = thing.centre
    box: Box = (to(left, y)[0], to(x, top)[1], to(right, y)[0], to(x, bottom)[1])
    wide, high = (box[2] - box[0]) / (right - left), (box[3] - box[1]) / (bottom - top)
    return dataclasses.replace(thing, box=box, seen=(thing.seen[0] * wide, thing.seen[1] * high))


def _scanned(rng: random.Random, scene: Scene) -> Image.Image:
    """Paper's tone, light from one side, softer lines, blocks of JPEG."""
    size = scene.image.width
    # white on toned paper would look beige, and beige white
    pale = any(t.colour in ("white", "beige") for t in scene.objects)
    tone = [1.0, 1.0, 1.0] if pale else [1.0, rng.uniform(0.96, 1.0), rng.uniform(0.9, 1.0)]
    light = np.array([[rng.uniform(0.9, 1.03) for _ in range(2)] for _ in range(2)])
    field = Image.fromarray(light.astype(np.float32)).resize(
        (size, size), Image.Resampling.BILINEAR
    )
    raw = (
        np.asarray(scene.image, dtype=np.float32)
        * np.asarray(field)[..., None]
        * np.array(tone, np.float32)
    )
    if rng.random() < 0.5:
        raw += np.random.default_rng(rng.getrandbits(32)).normal(0, 4, (size, size, 1))
    image = Image.fromarray(np.clip(raw, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=rng.randrange(30, 80))
    return Image.open(out).convert("RGB")


def _ground_holds(scene: Scene) -> bool:
    """Whether most of what lies between the things still bears the ground's name."""
    cells = scene.image.resize((_CELLS, _CELLS), Image.Resampling.BOX)
    free = np.ones((_CELLS, _CELLS), dtype=bool)
    for thing in scene.objects:
        left, top, right, bottom = (v * _CELLS for v in thing.box)
        free[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = False
    return share_of(np.asarray(cells)[free], scene.ground or "") > 0.8


def _framed(rng: random.Random, scene: Scene) -> Image.Image:
    """A window's title bar, a phone's status bar or a tool bar where no thing lies."""
    image, size = scene.image.copy(), scene.image.width
    pen = ImageDraw.Draw(image)
    above = round(min((t.box[1] for t in scene.objects), default=0.2) * size)
    below = round(min((1 - t.box[3] for t in scene.objects), default=0.2) * size)
    beside = round(min((t.box[0] for t in scene.objects), default=0.2) * size)
    least = max(5, size // 20)
    dark = rng.random() < 0.4
    tone, ink = ((35, 37, 41), (225, 225, 225)) if dark else ((226, 228, 232), (70, 70, 70))
    if beside > least and rng.random() < 0.3:
        wide = rng.randrange(least, min(beside, size // 7) + 1)
        pen.rectangle((0, 0, wide - 1, size), fill=tone)
    if below > least and rng.random() < 0.4:
        high = rng.randrange(least, min(below, size // 9) + 1)
        pen.rectangle((0, size - high, size, size), fill=tone)
    if above > least:
        _bar(rng, pen, size, rng.randrange(least, min(above, size // 7) + 1), tone, ink)
    if rng.random() < 0.5:
        pen.rectangle((0, 0, size - 1, size - 1), outline=tone)
    return image


def _bar(
    rng: random.Random, pen: ImageDraw.ImageDraw, size: int, high: int, tone: RGB, ink: RGB
) -> None:
    """A bar at the top: round buttons and a title, or a clock and a battery."""
    pen.rectangle((0, 0, size, high - 1), fill=tone)
    font, r = ImageFont.load_default(min(8.0, max(5.0, high * 0.7))), max(1, high // 5)
    if rng.random() < 0.5:
        for i, light in enumerate(((237, 106, 94), (245, 191, 79), (98, 197, 84))):
            x = high // 2 + i * 3 * r
            pen.ellipse((x - r, high / 2 - r, x + r, high / 2 + r), light)
        words = "".join(rng.choices("abcdefghiklmnoprstu", k=rng.randrange(4, 10)))
        pen.text((size / 2, high / 2), words, ink, font, "mm")
    else:
        clock = f"{rng.randrange(24)}:{rng.randrange(60):02d}"
        pen.text((high / 2, high / 2), clock, ink, font, "lm")
        pen.rectangle((size - 4 * r - 3, high / 2 - r, size - 3, high / 2 + r), outline=ink)


def _tint(rng: random.Random, colour: Image.Image) -> Image.Image:
    colour = ImageEnhance.Color(colour).enhance(rng.uniform(0.3, 1.5))
    colour = ImageEnhance.Contrast(colour).enhance(rng.uniform(0.75, 1.3))
    gains = [rng.uniform(0.8, 1.2) for _ in range(3)]
    table = [min(255, int(v * gain)) for gain in gains for v in range(256)]
    return colour.point(table)


def _outline(
    rng: random.Random, colour: Image.Image, alpha: Image.Image
) -> tuple[Image.Image, Image.Image]:
    """A dark or white line around the icon, outside or inside of its border."""
    width = rng.choice((3, 5))
    ink = (255, 255, 255) if rng.random() < 0.3 else (rng.randrange(70),) * 3
    if rng.random() < 0.5:
        wide = alpha.filter(ImageFilter.MaxFilter(width))
        base = Image.new("RGB", colour.size, ink)
        base.paste(colour, (0, 0), alpha)
        return base, wide
    inner = alpha.filter(ImageFilter.MinFilter(width))
    rim = ImageChops.subtract(alpha, inner)
    colour.paste(ink, (0, 0), rim)
    return colour, alpha


def _stretch(rng: random.Random, tile: Image.Image) -> Image.Image:
    """Other proportions within the same square."""
    side = tile.width
    wide, high = (round(side * rng.uniform(0.8, 1.0)) for _ in range(2))
    out = Image.new("RGBA", tile.size)
    small = tile.resize((wide, high), Image.Resampling.BILINEAR)
    out.paste(small, ((side - wide) // 2, (side - high) // 2))
    return out
