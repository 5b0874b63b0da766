"""Which way up a picture is: one number, 1 to 8, as EXIF (CIPA DC-008) has it."""

from __future__ import annotations

import re
import struct

from PIL import Image

_TAG = 274
_INTEGERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l"}  # TIFF's types of whole numbers
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def in_exif(exif: bytes) -> int:
    """The orientation in EXIF's first directory; 0 where there is none that can be read.

    Nothing else of it is looked at, so that no other tag can do harm.

    Args:
        exif: from TIFF's header on, or with ``Exif`` and two zero bytes before that.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 0
    (at,) = struct.unpack_from(order + "L", exif, 4)
    if at + 2 > len(exif):
        return 0
    (count,) = struct.unpack_from(order + "H", exif, at)
    for entry in range(at + 2, min(at + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values = struct.unpack_from(order + "HHL", exif, entry)
        if tag == _TAG and kind in _INTEGERS and values == 1:
            (value,) = struct.unpack_from(order + _INTEGERS[kind], exif, entry + 8)
            if 1 <= value <= 8:
                return int(value)
    return 0


def in_xmp(xmp: bytes) -> int:
    """The orientation that XMP repeats; 0 where there is none."""
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp)
    return int(found[1]) if found else 0


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    """The picture upright; the same object where it is so already."""
    method = _TURNS.get(orientation)
    return picture if method is None else picture.transpose(method)
