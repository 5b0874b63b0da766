"""JPEG files that lack nothing but the marker of their end."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Iterator

from PIL import Image

_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # no stuffed byte, no restart, no padding
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_START_OF_SCAN = 0xDA
_FILL = 512  # bytes: more than the block in which the data may end
_ROWS = 256  # compared at once


def lacks_end(data: bytes) -> bool:
    """Whether all scans of a JPEG have begun that its pixels need, and no marker ends the last one.

    A progressive file may be cut between two scans: what is there is then sound, but coarse.
    """
    if data.endswith(_END):  # as most do
        return False
    frame, scans, end = b"", [], 0
    for marker, body, after in _segments(data):
        if marker == _START_OF_SCAN:
            scans.append(body)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = body
        end = after
    return bool(scans) and not _MARKER.search(data, end) and _covered(frame, scans)


def whole_without_end(data: bytes, load: Callable[[bytes], Image.Image]) -> Image.Image | None:
    """The picture of a JPEG for which :func:`lacks_end` holds; None where pixels are missing.

    It is decoded with two endings that go on differently: where nothing of the data is missing,
    neither is looked at.

    Args:
        load: decodes a file at its full size, loaded.

    Raises:
        whatever ``load`` raises.
    """
    noise = random.Random(0).choices(range(0xFF), k=_FILL)
    filler = bytes(noise)
    last = _RESTART.findall(data)
    following = bytes((0xFF, 0xD0 + (last[-1][1] - 0xD0 + 1) % 8 if last else 0xD0))
    # Where the data ends at a restart, only what stands behind the next one is looked at.
    one = load(data + bytes(_FILL) + _END)
    other = load(data + filler + following + filler + _END)
    return one if _equal(one, other) else None


def _equal(one: Image.Image, other: Image.Image) -> bool:
    if one.size != other.size:
        return False
    for top in range(0, one.height, _ROWS):
        box = (0, top, one.width, min(top + _ROWS, one.height))
        if one.crop(box).tobytes() != other.crop(box).tobytes():
            return False
    return True


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Each marker with what belongs to it, and where that ends; entropy-coded data is passed over."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = data[found.start() + 1], found.end()
        if at + 2 > len(data):
            return
        if marker not in (0x01, 0xD8, 0xD9):
            (length,) = struct.unpack_from(">H", data, at)
            yield marker, data[at + 2 : at + length], at + length
            at += length


def _covered(frame: bytes, scans: list[bytes]) -> bool:
    """Whether the scans bring each component's coefficients down to their last bit."""
    lowest: dict[tuple[int, int], int] = {}
    for header in scans:
        count = header[0] if header else 0
        if len(header) < 4 + 2 * count:
            return False
        first, last, bits = header[1 + 2 * count : 4 + 2 * count]
        for component in header[1 : 1 + 2 * count : 2]:
            for coefficient in range(first, min(last, 63) + 1):
                lowest[component, coefficient] = bits & 15
    components = frame[6 : 6 + 3 * frame[5] : 3] if len(frame) > 5 else b""
    return bool(components) and not any(
        lowest.get((component, k), 1) for component in components for k in range(64)
    )
