"""The world's colour names: shades of each, and the name of any shade, where it has one.

A name is a set of sample shades (CSS, Material and flat-design values that people call so). A
colour bears the name of the nearest sample in CIE Lab; samples without a name (cyan, maroon,
olive, ...) keep what is between two names, or outside all, from being called anything.
"""

from __future__ import annotations

import functools
import random

import numpy as np
from PIL import Image

RGB = tuple[int, int, int]
COLOURS: dict[str, RGB] = {
    "red": (220, 30, 30), "orange": (250, 135, 15), "yellow": (250, 238, 30),
    "green": (40, 160, 55), "blue": (35, 80, 220), "purple": (130, 45, 175),
    "pink": (250, 130, 185), "brown": (120, 72, 35), "black": (15, 15, 15),
    "white": (250, 250, 250), "gray": (135, 135, 135),
    "teal": (0, 135, 132), "beige": (240, 232, 200), "gold": (235, 190, 15),
}  # fmt: skip
REACH = 18.0  # Lab distance from a sample within which a shade is drawn; named up to twice that
CLEAR = 5.0  # a shade that is drawn is so much nearer to its own samples than to another name's
_SAMPLES = {
    "red": "ff0000 dc1e1e f44336 d32f2f e74c3c dc143c e53935 c81e28 f02d2d",
    "orange": "fa870f ffa500 ff9800 ff8c00 f39c12 e67e22 fb8c00 f57c00",
    "yellow": "faee1e ffff00 ffeb3b fff176 fdee50 ebe614 fff44f",
    "green": "28a037 008000 00ff00 4caf50 2ecc71 228b22 32cd32 006400 90ee90 27ae60 1b5e20 66bb6a"
             " 2e8b57 8bc34a 7ccd32",
    "blue": "2350dc 0000ff 2196f3 1e90ff 4169e1 00008b 000080 3498db 4682b4 64b5f6 1976d2 5b8def"
            " 6495ed 0d47a1 87ceeb",
    "purple": "822daf 800080 9c27b0 673ab7 9b59b6 9370db 4b0082 8e44ad 7b1fa2 ba68c8 9400d3 6a1b9a",
    "pink": "fa82b9 ffc0cb ff69b4 ffb6c1 f8a5c2 f48fb1 ff8fc7 f06292",
    "brown": "784823 a52a2a 8b4513 a0522d 795548 5d4037 6d4c41 8d5524 4e342e 964b00",
    "black": "000000 0f0f0f 1c1c1c 212121",
    "white": "fafafa ffffff f5f5f5 f8f8f8",
    "gray": "878787 808080 9e9e9e 696969 a9a9a9 757575 616161 b4b4b4 7f8c8d 525252",
    "teal": "008784 008080 009688 00796b 008b8b 1a8f8a 00695c 26a69a",
    "beige": "f0e8c8 f5f5dc f5e6c8 e8dcc0 f5deb3 efe0b9 ede5d0",
    "gold": "ebbe0f ffd700 d4af37 daa520 e6c200 cfa018",
    # without a name: between two names, or none of them
    "": "00ffff 00bcd4 40e0d0 1abc9c 7fffd4 b0e0e6 add8e6 c8e6f5 e0ffff ff00ff da70d6 e6d5f0 d8bfd8"
        " 800000 8b0000 b22222 aa1e1e 6b1a1a ff4500 ff5722 ff7f50 fa8072 ffdab9 f0b090 d2691e c86432"
        " cd7f5f ffc107 ffb81c 808000 6b8e23 556b2f bdb76b cddc39 adff2f d4e157 f0f0a0 fffacd"
        " d0f5d0 c8e6c9 00ff7f 2f4f4f 37474f 607d8b 90a4ae 3a3a3a 303030 d3d3d3 e0e0e0 e6e6e6 c8c8c8"
        " ffe4e8 fff0f5 e91e63 c2185b c71585 3f51b5 5c5cb8 bc8f8f c4a484 d2b48c a89880 301010 102030"
        " 8a7a5a 3d3520 4a3a60 b0a0c0 203010 9fb8a0 7a9a90 006080 e8f0ff f0fff0 fffff0 c0a000 a08000"
        " b42832 a0283c b43c3c 963c46",
}  # fmt: skip


def lab(colours: np.ndarray) -> np.ndarray:
    """CIE Lab (D65) of sRGB values in 0..255; the last axis holds the three channels."""
    value = np.asarray(colours, dtype=np.float64) / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.array(to_xyz).T / (0.9505, 1.0, 1.089)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def name_of(rgb: RGB) -> str | None:
    """The name of a colour; ``None`` where it has none of :data:`COLOURS`."""
    return _names(np.array([rgb]))[0][0] or None


def shade(rng: random.Random, name: str) -> RGB:
    """A shade that is clearly of this name."""
    return rng.choice(_shades()[name])


def near_name(rgb: tuple[float, ...] | np.ndarray) -> str | None:
    """As :func:`name_of`, from a table of 32 steps a channel: quick, and rounded."""
    r, g, b = (int(v * (31 / 255) + 0.5) for v in rgb)
    return (*COLOURS, None)[_table()[0, r, g, b]]


def ground_of(image: Image.Image, cells: int = 8) -> str | None:
    """The one name that every part of a picture bears, as a background's; else ``None``."""
    parts = np.asarray(image.resize((cells, cells), Image.Resampling.BOX, reducing_gap=1.0))
    found = _lookup(parts, 1)
    index = int(found.flat[0])
    return tuple(COLOURS)[index] if index < len(COLOURS) and (found == index).all() else None


def share_of(parts: np.ndarray, name: str) -> float:
    """Share of the colours in [n, 3] (0..255) that bear a name, by the quick table."""
    return float((_lookup(parts) == tuple(COLOURS).index(name)).mean()) if len(parts) else 0.0


def _lookup(parts: np.ndarray, clear: int = 0) -> np.ndarray:
    step = (parts * (31 / 255) + 0.5).astype(np.intp)
    found: np.ndarray = _table()[clear, step[..., 0], step[..., 1], step[..., 2]]
    return found


@functools.lru_cache(maxsize=1)
def _samples() -> tuple[list[str], np.ndarray]:
    """Names and Lab values of all samples."""
    pairs = [(name, code) for name, codes in _SAMPLES.items() for code in codes.split()]
    return [name for name, _ in pairs], lab(np.array([list(bytes.fromhex(c)) for _, c in pairs]))


def _distances(colours: np.ndarray) -> np.ndarray:
    """[n, names] Lab distance to the nearest sample of each name; the last is the nameless."""
    names, samples = _samples()
    spots = lab(colours)
    square = (spots**2).sum(-1)[:, None] - 2 * spots @ samples.T + (samples**2).sum(-1)[None]
    far = np.sqrt(np.maximum(square, 0))
    groups = [[i for i, n in enumerate(names) if n == name] for name in (*COLOURS, "")]
    return np.stack([far[:, group].min(-1) for group in groups], -1)


def _names(colours: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Names of [n, 3] colours ("" for none), and which of them are clear enough to be drawn."""
    far = _distances(colours)
    order = np.sort(far, -1)
    best = far.argmin(-1)
    best[order[:, 0] > 2 * REACH] = len(COLOURS)
    clear = (order[:, 0] <= REACH) & (order[:, 1] - order[:, 0] >= CLEAR)
    return [(*COLOURS, "")[i] for i in best], clear & (best < len(COLOURS))


@functools.lru_cache(maxsize=1)
def _shades() -> dict[str, list[RGB]]:
    """Some hundreds of clear shades of each name, spread around its samples."""
    draw = np.random.default_rng(7)
    shades: dict[str, list[RGB]] = {}
    for name in COLOURS:
        spots = np.array([list(bytes.fromhex(code)) for code in _SAMPLES[name].split()])
        spread = 5 if name in ("white", "black", "gray") else 13
        around = np.repeat(spots, max(12, 400 // len(spots)), 0)
        jitter = draw.normal(0, spread, around.shape)
        jitter[:: len(around) // len(spots)] = 0  # the samples themselves
        wide = np.clip(around + jitter, 0, 255).round().astype(int)
        names, clear = _names(wide)
        good = [
            tuple(v) for v, n, c in zip(wide.tolist(), names, clear, strict=True) if c and n == name
        ]
        shades[name] = [(r, g, b) for r, g, b in good]
    return shades


@functools.lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """[2, 32, 32, 32] index of the name, ``len(COLOURS)`` for none; then of clear colours only."""
    step = np.arange(32) * (255 / 31)
    every = np.stack(np.meshgrid(step, step, step, indexing="ij"), -1).reshape(-1, 3)
    index = {name: i for i, name in enumerate((*COLOURS, ""))}
    names, clear = _names(every)
    found = np.array([index[name] for name in names])
    return np.stack([found, np.where(clear, found, len(COLOURS))]).reshape(2, 32, 32, 32)
