"""Small files that cost whoever opens them a lot of time or memory."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG, ``side`` pixels wide and high, that goes over its pixels many times."""
    out = io.BytesIO()
    Image.new("L", (side, side), 128).save(out, "JPEG", progressive=True, quality=50)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")  # the last scan: a refinement, a few bytes a row
    tables = data.rfind(b"\xff\xc4", 0, last)  # its Huffman table stands before it
    scan = data[tables:-2]
    return data[:tables] + scan * scans + data[-2:]


def flat_png(width: int, height: int, grey: int = 1) -> bytes:
    """A PNG of one colour, ``grey`` bits a pixel; a thousandth of what it unpacks to."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (width * grey + 7) // 8)
    rows = max(1, 2**20 // len(row))
    body = b"".join(packer.compress(row * min(rows, height - y)) for y in range(0, height, rows))
    header = struct.pack(">IIBBBBB", width, height, grey, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body + packer.flush()), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
