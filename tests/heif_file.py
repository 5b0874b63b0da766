"""HEIC files, written box by box (ISO 14496-12 and -15, 23008-12) around a picture in HEVC.

``quarters``: 64 × 48 pixels; red, green, blue and white, row by row.
"""

from __future__ import annotations

import struct
from pathlib import Path

SIZE = (64, 48)
QUARTERS = ((220, 30, 30), (30, 200, 40), (40, 60, 220), (255, 255, 255))
_STREAM = Path(__file__).parent / "data" / "pictures" / "quarters.hevc"
_VPS, _SPS, _PPS = 32, 33, 34  # kinds of HEVC's units


def box(kind: bytes, *parts: bytes, version: int | None = None, flags: int = 0) -> bytes:
    """A box; with a version it is a full one."""
    head = b"" if version is None else struct.pack(">L", version << 24 | flags)
    body = head + b"".join(parts)
    return struct.pack(">L4s", 8 + len(body), kind) + body


def units() -> list[bytes]:
    """The units of the stream, without their start codes."""
    parts = _STREAM.read_bytes().replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return [part for part in parts if part]


def _kind(unit: bytes) -> int:
    return unit[0] >> 1 & 63


def _configuration() -> bytes:
    """hvcC: profile and level as the sequence's parameters have them, and all parameters."""
    (sequence,) = [unit for unit in units() if _kind(unit) == _SPS]
    plain = sequence.replace(b"\0\0\3", b"\0\0")
    record = b"\1" + plain[3:15] + struct.pack(">HBBBBHB", 0xF000, 0xFC, 0xFD, 0xF8, 0xF8, 0, 0x0F)
    arrays = b""
    for kind in (_VPS, _SPS, _PPS):
        found = [unit for unit in units() if _kind(unit) == kind]
        arrays += struct.pack(">BH", 0x80 | kind, len(found))
        arrays += b"".join(struct.pack(">H", len(unit)) + unit for unit in found)
    return box(b"hvcC", record, b"\3", arrays)


def heic(
    *,
    brand: bytes = b"heic",
    brands: tuple[bytes, ...] = (b"mif1", b"heic"),
    turn: int | None = None,
    exif: bytes = b"",
    colours: bytes = b"",
    kind: bytes = b"hvc1",
    configuration: bytes = b"",
) -> bytes:
    """A file with one picture.

    Args:
        brand: the major one; ``brands``: the compatible ones.
        turn: irot's count of quarter turns against the clock.
        exif: from TIFF's header on.
        colours: what the box ``colr`` holds.
        kind: the type of the item; ``configuration``: the box that belongs to it, in place of hvcC.
    """
    slices = [unit for unit in units() if _kind(unit) < _VPS]
    coded = b"".join(struct.pack(">L", len(unit)) + unit for unit in slices)
    properties = [
        box(b"ispe", struct.pack(">LL", *SIZE), version=0),
        configuration or _configuration(),
    ]
    if colours:
        properties.append(box(b"colr", colours))
    if turn is not None:
        properties.append(box(b"irot", bytes([turn])))
    essential = [n for n, part in enumerate(properties) if part[4:8] not in (b"ispe", b"colr")]
    indices = bytes((n + 1) | (0x80 if n in essential else 0) for n in range(len(properties)))
    items, data = [(1, kind)], [coded]
    references = b""
    if exif:
        items.append((2, b"Exif"))
        data.append(struct.pack(">L", 6) + b"Exif\0\0" + exif)
        references = box(b"iref", box(b"cdsc", struct.pack(">HHH", 2, 1, 1)), version=0)
    start = box(b"ftyp", brand, b"\0\0\0\0", *brands)

    def meta(first: int) -> bytes:
        places, at = b"", first
        for (number, _), part in zip(items, data, strict=True):
            places += struct.pack(">HHHLL", number, 0, 1, at, len(part))
            at += len(part)
        entries = b"".join(
            box(b"infe", struct.pack(">HH4sx", number, 0, name), version=2)
            for number, name in items
        )
        association = struct.pack(">LHB", 1, 1, len(indices)) + indices
        return box(
            b"meta",
            box(b"hdlr", struct.pack(">L4s12xx", 0, b"pict"), version=0),
            box(b"pitm", struct.pack(">H", 1), version=0),
            box(b"iloc", struct.pack(">BBH", 0x44, 0, len(items)), places, version=0),
            box(b"iinf", struct.pack(">H", len(items)), entries, version=0),
            references,
            box(b"iprp", box(b"ipco", *properties), box(b"ipma", association, version=0)),
            version=0,
        )

    body = b"".join(data)
    return start + meta(len(start) + len(meta(0)) + 8) + box(b"mdat", body)
