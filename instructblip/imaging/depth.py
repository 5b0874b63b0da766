"""Pixels of any mode → eight bits in a mode that can be reduced, transparent values as alpha."""

from __future__ import annotations

import math

from PIL import Image

from instructblip.imaging import icc

DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # modes of more than eight bits
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF's tags, and a value


def transparent(picture: Image.Image) -> bool:
    """Whether some of its pixels may be transparent."""
    return picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info


def eight_bits(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """The picture in mode L, LA, RGB, RGBA, CMYK, LAB or YCbCr, and the ICC profile that it still has.

    Greys of 16 bits keep their scale (0 to 65535, 12 bits likewise); 32 bits and floats have none,
    so their own range becomes black to white. Pillow's own conversion would clip all of them at 255.
    """
    if picture.mode in DEEP:
        return _from_deep(picture, profile)
    if picture.mode in ("1", "L") and transparent(picture):
        return picture.convert("LA"), profile
    if picture.mode in ("P", "PA") or "transparency" in picture.info:
        return picture.convert("RGBA" if transparent(picture) else "RGB"), profile
    plain = {"1": "L", "La": "LA", "RGBa": "RGBA"}.get(picture.mode)
    return (picture.convert(plain) if plain else picture), profile


def clipped(picture: Image.Image) -> bool:
    """Whether Pillow's ``convert("RGB")``, which LAVIS uses, loses values outside 0 to 255."""
    if picture.mode not in DEEP:
        return False
    low, high = _range(picture)
    return low < 0 or high > 255 or (picture.mode == "F" and high <= 1)


def _from_deep(picture: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    key = picture.info.get("transparency")
    alpha = None
    if isinstance(key, int) and picture.mode.startswith("I;16"):
        alpha = picture.convert("I").point([0 if v == key else 255 for v in range(65536)], "L")
    picture = _sixteen_bits(picture)
    if profile is not None and profile[16:20] == b"GRAY":
        grey, profile = icc.to_srgb(picture, profile), None
    else:
        grey = picture.convert("I").point([round(v / 257) for v in range(65536)], "L")
    if alpha is not None:
        grey.putalpha(alpha)
    return grey, profile


def _sixteen_bits(picture: Image.Image) -> Image.Image:
    """Mode I;16, from black at 0 to white at 65535."""
    tags = getattr(picture, "tag_v2", {})
    low, high = 0.0, 65535.0
    if not picture.mode.startswith("I;16"):
        low, high = _range(picture)
        high = max(high, low + 1.0)
    elif tags.get(_BITS) == (12,):
        high = 4095.0
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow leaves these modes as they are
        low, high = high, low
    if (low, high) == (0.0, 65535.0):
        return picture.convert("I;16")
    scale = 65535.0 / (high - low)
    scaled = picture.convert("F").point(lambda value: value * scale - low * scale)
    return scaled.convert("I").convert("I;16")


def _range(picture: Image.Image) -> tuple[float, float]:
    """The least and the greatest value; 0 and 1 where they are no numbers."""
    low, high = picture.convert("F").getextrema()
    if not (isinstance(low, float) and isinstance(high, float) and math.isfinite(high - low)):
        return 0.0, 1.0
    return low, high
