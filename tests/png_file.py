"""PNG files, written chunk by chunk (PNG, third edition): any depth, key, palette and gamma."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the type of colour
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its check sum."""
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def png(
    rows: Sequence[Sequence[Sequence[int]]],
    colour: int,
    depth: int,
    *chunks: tuple[bytes, bytes],
) -> bytes:
    """A file of rows of pixels of samples. ``chunks`` stand before the pixels."""
    packed = b""
    for row in rows:
        bits = "".join(f"{sample:0{depth}b}" for pixel in row for sample in pixel)
        bits += "0" * (-len(bits) % 8)
        packed += b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    head = struct.pack(">LLBBBBB", len(rows[0]), len(rows), depth, colour, 0, 0, 0)
    before = b"".join(chunk(*each) for each in chunks)
    body = (
        chunk(b"IHDR", head) + before + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def gamma(value: float) -> tuple[bytes, bytes]:
    """gAMA."""
    return b"gAMA", struct.pack(">L", round(value * 100_000))


def key(*samples: int) -> tuple[bytes, bytes]:
    """tRNS of a grey or a colour."""
    return b"tRNS", struct.pack(f">{len(samples)}H", *samples)
