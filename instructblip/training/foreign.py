"""Pictures from outside the embedded model's world, for the answer "I don't recognise this".

Photographs come from a folder that is given to training (none ships); the rest is drawn: noise,
patterns, pages of text, windows of programs, charts, scribbles, smears.
"""

from __future__ import annotations

import functools
import random
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from instructblip.scenes import SIZE, background

_WORK = 224  # drawn larger than needed, then scaled as an upload is
Draw = Callable[[random.Random], Image.Image]


def foreign(rng: random.Random, photos: Path | None = None) -> Image.Image:
    """[112, 112] RGB picture that holds nothing the model knows."""
    known = _photos(photos) if photos else ()
    if known and rng.random() < 0.55:
        image = _crop(rng, rng.choice(known))
    else:
        image = rng.choice(_DRAWN)(rng)
    if rng.random() < 0.5:
        image = ImageOps.mirror(image)
    if rng.random() < 0.1:
        image = ImageOps.grayscale(image).convert("RGB")
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)


@functools.lru_cache(maxsize=2)
def _photos(folder: Path) -> tuple[Image.Image, ...]:
    """Every picture below a folder, its longer side cut to 320 pixels."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"):
            with Image.open(path) as file:
                picture = file.convert("RGB")
            picture.thumbnail((320, 320))
            found.append(picture)
    return tuple(found)


def _crop(rng: random.Random, picture: Image.Image) -> Image.Image:
    share = rng.uniform(0.45, 1.0)
    wide, high = (max(8, round(side * share)) for side in picture.size)
    x, y = rng.randrange(picture.width - wide + 1), rng.randrange(picture.height - high + 1)
    cut = picture.crop((x, y, x + wide, y + high))
    if rng.random() < 0.5:
        cut = cut.rotate(rng.uniform(-12, 12), Image.Resampling.BILINEAR)
    gains = [rng.uniform(0.75, 1.25) for _ in range(3)]
    return cut.point([min(255, int(v * g)) for g in gains for v in range(256)])


def _noise(rng: random.Random) -> Image.Image:
    """White to deep-red noise: power falls with frequency as f^-slope."""
    draw = np.random.default_rng(rng.getrandbits(32))
    slope, channels = rng.choice((0.0, 0.5, 1.0, 1.5, 2.0)), rng.choice((1, 3))
    wave = np.fft.rfft2(draw.normal(size=(channels, 112, 112)))
    rate = np.hypot(*np.meshgrid(np.fft.fftfreq(112), np.fft.rfftfreq(112), indexing="ij"))
    rate[0, 0] = 1 / 112
    field = np.fft.irfft2(wave * rate**-slope, s=(112, 112))
    field = (field - field.mean()) / field.std() * rng.uniform(25, 70) + rng.uniform(70, 190)
    return Image.fromarray(
        np.clip(np.broadcast_to(field, (3, 112, 112)), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    )


def _pattern(rng: random.Random) -> Image.Image:
    """Stripes, checks, many rings or a moiré of two waves."""
    draw = np.random.default_rng(rng.getrandbits(32))
    y, x = np.mgrid[0:112, 0:112] / 112 - 0.5
    angle, rate = rng.uniform(0, np.pi), rng.uniform(4, 24)
    wave = np.sin(2 * np.pi * rate * (x * np.cos(angle) + y * np.sin(angle)))
    how = rng.random()
    if how < 0.3:
        wave = wave * np.sin(2 * np.pi * rate * (y * np.cos(angle) - x * np.sin(angle)))
    elif how < 0.5:
        many = max(rate, 9)  # a few rings would be rings
        wave = np.sin(2 * np.pi * many * np.hypot(x - rng.uniform(-0.4, 0.4), y))
    if rng.random() < 0.6:
        wave = np.sign(wave)
    one, two = draw.integers(0, 256, (2, 3))
    share = (wave[..., None] + 1) / 2
    return Image.fromarray((one * share + two * (1 - share)).astype(np.uint8))


def _words(rng: random.Random, count: int) -> str:
    letters = string.ascii_lowercase if rng.random() < 0.9 else string.digits
    return " ".join("".join(rng.choices(letters, k=rng.randrange(2, 9))) for _ in range(count))


def _page(rng: random.Random) -> Image.Image:
    """A scanned or photographed page of text."""
    paper, ink = rng.randrange(200, 256), rng.randrange(0, 90)
    page = Image.new("RGB", (_WORK, _WORK), (paper, paper, rng.randrange(170, paper)))
    pen, size = ImageDraw.Draw(page), rng.choice((8, 10, 13, 18, 26))
    font, y = ImageFont.load_default(size), rng.randrange(-10, 25)
    margin = rng.randrange(0, 30)
    while y < _WORK:
        if rng.random() < 0.9:
            pen.text((margin, y), _words(rng, rng.randrange(2, 9)), (ink,) * 3, font)
        y += round(size * rng.uniform(1.2, 1.7))
    return page.rotate(rng.uniform(-4, 4), Image.Resampling.BILINEAR, fillcolor=(paper - 60,) * 3)


def _window(rng: random.Random) -> Image.Image:
    """A program's window: bars, panels, buttons, lines of text."""
    dark = rng.random() < 0.4
    tone = [rng.randrange(15, 60) if dark else rng.randrange(215, 256) for _ in range(3)]
    image = Image.new("RGB", (_WORK, _WORK), tuple(tone))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(rng.choice((7, 9, 11, 14)))
    pen.rectangle((0, 0, _WORK, rng.randrange(8, 30)), fill=_any(rng))
    if rng.random() < 0.6:
        pen.rectangle((0, 0, rng.randrange(20, 70), _WORK), fill=_any(rng))
    for _ in range(rng.randrange(4, 16)):
        x, y = rng.randrange(_WORK), rng.randrange(_WORK)
        wide, high = rng.randrange(15, 130), rng.randrange(8, 40)
        if rng.random() < 0.4:
            pen.rounded_rectangle((x, y, x + wide, y + high), rng.randrange(9), fill=_any(rng))
        ink = (230, 230, 230) if dark else (40, 40, 40)
        pen.text((x + 3, y + 3), _words(rng, rng.randrange(1, 5)), ink, font)
    return image


def _chart(rng: random.Random) -> Image.Image:
    """Bars, lines or points between axes."""
    image = Image.new("RGB", (_WORK, _WORK), (rng.randrange(235, 256),) * 3)
    pen, how = ImageDraw.Draw(image), rng.random()
    pen.line([(25, 8), (25, 200), (215, 200)], fill=(60, 60, 60), width=2)
    if rng.random() < 0.5:
        for y in range(20, 200, 30):
            pen.line([(25, y), (215, y)], fill=(205, 205, 205))
    for _ in range(rng.randrange(1, 4)):
        colour, level = _any(rng), rng.uniform(40, 180)
        points = []
        for step in range(32, 212, rng.choice((6, 12, 20))):
            level = min(195.0, max(10.0, level + rng.gauss(0, 18)))
            points.append((float(step), level))
        if how < 0.35:
            for at, top in points:
                pen.rectangle((at, top, at + 7, 200), fill=colour)
        elif how < 0.75:
            pen.line(points, fill=colour, width=rng.choice((1, 2, 4)))
        else:
            for at, top in points:
                pen.ellipse((at - 3, top - 3, at + 3, top + 3), fill=colour)
    return image


def _scribble(rng: random.Random) -> Image.Image:
    """Pen strokes and smears on paper or over a soft background."""
    image = background(rng, _WORK)
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randrange(2, 14)):
        x: float = rng.uniform(0, _WORK)
        y: float = rng.uniform(0, _WORK)
        colour = _any(rng)
        points, turn = [], rng.uniform(0, 6.3)
        for _ in range(rng.randrange(5, 60)):
            turn += rng.gauss(0, 0.5)
            x, y = x + 7 * float(np.cos(turn)), y + 7 * float(np.sin(turn))
            points.append((x, y))
        pen.line(points, fill=colour, width=rng.choice((1, 2, 3, 6, 14)), joint="curve")
    return image


def _rubble(rng: random.Random) -> Image.Image:
    """Many overlapping polygons and discs."""
    image = background(rng, _WORK)
    pen = ImageDraw.Draw(image)
    reach = rng.choice((15, 30, 60))
    for _ in range(rng.randrange(25, 120)):
        x, y = rng.randrange(_WORK), rng.randrange(_WORK)
        corners = [
            (x + rng.randrange(-reach, reach), y + rng.randrange(-reach, reach))
            for _ in range(rng.randrange(3, 7))
        ]
        pen.polygon(corners, fill=_any(rng))
    return image


def _empty(rng: random.Random) -> Image.Image:
    """A background with nothing on it."""
    return background(rng, SIZE)


def _any(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


_DRAWN: tuple[Draw, ...] = (
    _noise, _noise, _pattern, _page, _page, _window, _window, _chart, _scribble, _rubble, _empty,
)  # fmt: skip
