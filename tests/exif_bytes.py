"""EXIF, written entry by entry (TIFF 6.0, CIPA DC-008), so that it can be as odd as files are."""

from __future__ import annotations

import struct
from collections.abc import Iterator

ORIENTATION = 274
DIRECTORIES = {"first": 0, "exif": 34665, "gps": 34853, "interop": 40965, "thumbnail": 1}
# Bytes of a value of each type; the last ones are BigTIFF's, or no type at all.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
         17: 8, 18: 8, 0: 1, 14: 4, 255: 1, 65535: 1}  # fmt: skip
_VALUES = {
    "zeros": b"\0" * 64,
    "ones": b"\xff" * 64,
    "-1/0": struct.pack("<lL", -1, 0) * 8,
    "1/0": struct.pack("<LL", 1, 0) * 8,
    "not a number": struct.pack("<f", float("nan")) * 16,
    "text": b"\0a\xe9\xff" * 16,
}
# A tag of each directory that decoders look at: resolution, versions, times, positions.
_TAGS = {"first": 282, "exif": 36864, "gps": 2, "interop": 1, "thumbnail": 513}


def directory(at: int, entries: list[tuple[int, int, int, bytes]], following: int = 0) -> bytes:
    """A directory at ``at``, little-endian: (tag, type, count, value) each; long values behind it."""
    body, behind = b"", at + 2 + 12 * len(entries) + 4
    tail = b""
    for tag, kind, count, value in sorted(entries, key=lambda entry: entry[0]):
        if len(value) > 4:
            value, tail = struct.pack("<L", behind + len(tail)), tail + value
        body += struct.pack("<HHL", tag, kind, count) + value.ljust(4, b"\0")
    return struct.pack("<H", len(entries)) + body + struct.pack("<L", following) + tail


def exif(
    orientation: int | None = 6,
    odd: tuple[int, int, int, bytes] | None = None,
    within: str = "first",
) -> bytes:
    """EXIF from TIFF's header on, with an orientation and one odd entry in a directory."""
    first: list[tuple[int, int, int, bytes]] = []
    if orientation is not None:
        first.append((ORIENTATION, 3, 1, struct.pack("<H", orientation)))
    if within == "first":
        first += [odd] if odd else []
        return b"II*\0" + struct.pack("<L", 8) + directory(8, first)
    inner = [odd] if odd else []
    room = 8 + 2 + 12 * 4 + 4 + 64
    if within == "thumbnail":
        head = directory(8, first, following=room)
    else:
        named = [
            (DIRECTORIES["exif" if within == "interop" else within], 4, 1, struct.pack("<L", room))
        ]
        head = directory(8, first + named)
    if within == "interop":
        middle = room + 100
        inner_bytes = directory(room, [(DIRECTORIES["interop"], 4, 1, struct.pack("<L", middle))])
        inner_bytes = inner_bytes.ljust(100, b"\0") + directory(middle, inner)
    else:
        inner_bytes = directory(room, inner)
    return (b"II*\0" + struct.pack("<L", 8) + head).ljust(room, b"\0") + inner_bytes


def odd_ones() -> Iterator[tuple[str, bytes]]:
    """Every type in every directory with every kind of value, and what it is."""
    for within, tag in _TAGS.items():
        for kind, size in SIZES.items():
            for name, value in _VALUES.items():
                for count in (1, 3):
                    entry = (tag, kind, count, value[: size * count])
                    yield f"{within}, type {kind} × {count}, {name}", exif(6, entry, within)
            lost = struct.pack("<HHLL", tag, kind, 2**32 - 1, 2**32 - 16)
            whole = exif(6, (tag, kind, 1, b"here"), within)
            yield (
                f"{within}, type {kind}, elsewhere",
                whole.replace(struct.pack("<HHL", tag, kind, 1) + b"here", lost),
            )
