"""Backgrounds of composed scenes."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image

from instructblip.colours import RGB, shade

NAMED = 0.30  # share of backgrounds that are plain, or nearly, in one named colour
GROUNDS = {
    "white": 9, "black": 3, "gray": 3, "beige": 2, "blue": 2, "green": 2, "yellow": 1.5, "red": 1,
    "pink": 1, "purple": 1, "orange": 1, "teal": 1, "brown": 1, "gold": 0.5,
}  # fmt: skip


def background(rng: random.Random, size: int) -> Image.Image:
    """A background, RGB: of one named colour, or of any colours, plain to photo-like."""
    if rng.random() < NAMED:
        return _named(rng, size)
    draw = np.random.default_rng(rng.getrandbits(32))
    how = rng.random()
    low, high = (150, 256) if rng.random() < 0.6 else (0, 256)
    one = draw.integers(low, high, 3)
    if how < 0.33:
        return Image.new("RGB", (size, size), tuple(one.tolist()))
    if how < 0.53:  # gradient between two or four corner colours
        corners = draw.integers(low, high, (2, 2, 3), dtype=np.uint8)
        if rng.random() < 0.5:
            corners[1] = corners[0]
        return _grown(corners, size)
    if how < 0.75:  # fine noise or coarse checks around one colour
        return _noisy(rng, draw, one, size, rng.uniform(4, 22))
    cells = rng.choice((3, 4, 6, 9))  # blurred blobs, like a photograph out of focus
    blobs = one + draw.normal(0, rng.uniform(15, 45), (cells, cells, 3))
    picture = Image.fromarray(np.clip(blobs, 0, 255).astype(np.uint8))
    return picture.resize((size, size), Image.Resampling.BICUBIC)


def light_ground(rng: random.Random, size: int) -> Image.Image:
    """A plain near-white or pastel background, RGB."""
    draw = rng.random()
    if draw < 0.25:
        return Image.new("RGB", (size, size), (255, 255, 255))
    if draw < 0.45:
        return Image.new("RGB", (size, size), (rng.randrange(225, 256),) * 3)
    low = 215 if draw < 0.85 else 170
    tone = (rng.randrange(low, 256), rng.randrange(low, 256), rng.randrange(low, 256))
    return Image.new("RGB", (size, size), tone)


def _named(rng: random.Random, size: int) -> Image.Image:
    """Plain, or with a little noise, or a slight gradient."""
    name = rng.choices(list(GROUNDS), list(GROUNDS.values()))[0]
    one: RGB = (255, 255, 255) if name == "white" and rng.random() < 0.5 else shade(rng, name)
    draw = rng.random()
    if draw < 0.65:
        return Image.new("RGB", (size, size), one)
    numbers = np.random.default_rng(rng.getrandbits(32))
    if draw < 0.85:
        return _noisy(rng, numbers, np.array(one), size, rng.uniform(2, 8))
    ends = np.array(one) + numbers.normal(0, 6, (2, 2, 3))
    return _grown(np.clip(ends, 0, 255).astype(np.uint8), size)


def _noisy(
    rng: random.Random, draw: np.random.Generator, one: np.ndarray, size: int, strength: float
) -> Image.Image:
    cells = rng.choice((size, size // 2, size // 4, 8))
    noise = draw.normal(0, strength, (cells, cells, 1 if rng.random() < 0.5 else 3))
    return _grown(np.clip(one + noise, 0, 255).astype(np.uint8), size)


def _grown(small: np.ndarray, size: int) -> Image.Image:
    return Image.fromarray(small).resize((size, size), Image.Resampling.BILINEAR)
