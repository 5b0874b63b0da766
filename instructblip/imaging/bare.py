"""A picture's file without its metadata, and the little of the metadata that counts.

Decoders then read no EXIF, comment or text at all, so that nothing in those can spoil a sound
picture. What is not understood is left as it is, for the decoder to judge.
"""

from __future__ import annotations

import re
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass

from instructblip.imaging import icc
from instructblip.imaging.boxed import is_boxed
from instructblip.imaging.orientation import in_exif, in_xmp

_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"Raw profile type exif", b"Raw profile type APP1")  # as ImageMagick keeps EXIF in a PNG
_KEYS = {0: (2,), 2: (6,), 3: range(1, 257)}  # bytes of a PNG's tRNS, by its type of colour
_MOST_INFLATED = 2**24  # bytes of a compressed text or profile
# TIFF's tags that its pixels are read by (TIFF 6.0 and its supplements); 274 is the orientation.
_TIFF_TAGS = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324,
     325, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 34675)
)  # fmt: skip
_ORIENTATION = 274
# An entry of a HEIF file's list of items, of version 2 or 3, that is an item of EXIF.
_EXIF_ITEM = re.compile(rb"infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2}(?=Exif)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Bare:
    """A file bared of metadata. ``profile``: an ICC profile that was taken out, as PNG's is."""

    data: bytes
    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes | None = None

    @property
    def orientation(self) -> int:
        """EXIF's orientation, else XMP's, 1 to 8; 1 where there is none that can be read."""
        return in_exif(self.exif) or in_xmp(self.xmp) or 1


def bare(data: bytes) -> Bare:
    """Take the metadata out of a file of any format; never fails."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _bare_jpeg(data)
        if data.startswith(_PNG):
            return _bare_png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return Bare(data, *_webp_metadata(data))
        if data[:2] in (b"II", b"MM"):
            return Bare(_bare_tiff(data))
        if is_boxed(data):
            return Bare(_bare_boxes(data))
    except (struct.error, ValueError, IndexError):
        pass
    return Bare(data)


# --- JPEG ------------------------------------------------------------------------------------------


def _bare_jpeg(data: bytes) -> Bare:
    """Up to the first scan: tables, JFIF's header, Adobe's (it tells the colours) and the profile."""
    kept, exif, xmp, at = [data[:2]], list[bytes](), b"", 2
    while data[at] == 0xFF and data[at + 1] not in (0x00, 0xDA):
        if data[at + 1] == 0xFF:  # markers may be padded
            at += 1
            continue
        marker, length = data[at + 1], 2
        if not 0xD0 <= marker <= 0xD8 and marker != 0x01:  # those stand alone
            length += struct.unpack_from(">H", data, at + 2)[0]
        body = data[at + 4 : at + length]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            exif.append(body[6:])
        elif marker == 0xE1:
            xmp = xmp or body  # nothing else is known to be there
        profile = marker == 0xE2 and body.startswith(b"ICC_PROFILE\0")
        named = marker in (0xE0, 0xEE) or profile
        if named or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[at : at + length])
        at += length
    return Bare(b"".join([*kept, data[at:]]), b"".join(exif), xmp)


# --- PNG -------------------------------------------------------------------------------------------


def _bare_png(data: bytes) -> Bare:
    """The chunks that make the pixels; of an animation, its still picture."""
    kept, found, at = [_PNG], dict[bytes, bytes](), len(_PNG)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">L4s", data, at)
        end = at + 12 + length
        if kind[:1].isupper() or (kind == b"tRNS" and length in _KEYS.get(data[25], ())):
            kept.append(data[at:end])
        elif kind in (b"iTXt", b"tEXt", b"zTXt"):
            _read_text(kind, data[at + 8 : end - 4], found)
        else:
            found.setdefault(kind, data[at + 8 : end - 4])
        at = end
    exif = found.get(b"eXIf") or found.get(b"exif", b"")
    return Bare(b"".join(kept), exif, found.get(b"xmp", b""), _png_profile(data, found))


def _read_text(kind: bytes, chunk: bytes, found: dict[bytes, bytes]) -> None:
    """EXIF and XMP, where a text is one of them."""
    key, _, rest = chunk.partition(b"\0")
    if kind == b"iTXt" and key == b"XML:com.adobe.xmp" and b"xmp" not in found:
        packed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        found[b"xmp"] = _inflated(text) if packed else text
    elif kind in (b"tEXt", b"zTXt") and key in _TEXTS and b"exif" not in found:
        text = _inflated(rest[1:]) if kind == b"zTXt" else rest
        # A name, a length, then the bytes in hexadecimal, each on lines of its own.
        digits = b"".join(text.split(b"\n")[3:])
        found[b"exif"] = b""
        with suppress(ValueError):
            found[b"exif"] = bytes.fromhex(digits.decode("ascii", "replace"))


def _inflated(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _MOST_INFLATED)
    except zlib.error:
        return b""


def _png_profile(data: bytes, found: dict[bytes, bytes]) -> bytes | None:
    """What the colours mean, by PNG's own precedence (third edition, 4.3); None for sRGB."""
    grey = data[25:26] in (b"\0", b"\4")
    if len(code := found.get(b"cICP", b"")) == 4:
        return icc.from_code(code[0], code[1], grey=grey)
    if b"iCCP" in found:
        profile = _inflated(found[b"iCCP"].partition(b"\0")[2][1:])
        if profile:
            return profile
    if b"sRGB" in found or len(found.get(b"gAMA", b"")) != 4:
        return None
    gamma = struct.unpack(">L", found[b"gAMA"])[0] / 100_000
    chroma = found.get(b"cHRM", b"")
    points = [v / 100_000 for v in struct.unpack(">8L", chroma)] if len(chroma) == 32 else None
    return icc.from_gamma(gamma, points, grey=grey)


# --- WebP ------------------------------------------------------------------------------------------


def _webp_metadata(data: bytes) -> tuple[bytes, bytes]:
    """EXIF and XMP; both stay in the file, where the decoder passes over them."""
    found, at = dict[bytes, bytes](), 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sL", data, at)
        if kind in (b"EXIF", b"XMP "):
            found.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return found.get(b"EXIF", b""), found.get(b"XMP ", b"")


# --- TIFF ------------------------------------------------------------------------------------------


def _bare_tiff(data: bytes) -> bytes:
    """The first directory, in its place, with the tags that make the pixels; no other directory."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    header, count_type, entry, size = (8, "Q", "HHQ", 20) if big else (4, "H", "HHL", 12)
    pointer = "Q" if big else "L"
    (at,) = struct.unpack_from(order + pointer, data, header)
    (count,) = struct.unpack_from(order + count_type, data, at)
    first = at + struct.calcsize(order + count_type)
    if first + count * size > len(data):
        return data
    kept = []
    for place in range(first, first + count * size, size):
        tag, kind, values = struct.unpack_from(order + entry, data, place)
        if tag in _TIFF_TAGS and (tag != _ORIENTATION or (kind in (3, 4) and values == 1)):
            kept.append(data[place : place + size])
    end = first + count * size + struct.calcsize(order + pointer)
    directory = struct.pack(order + count_type, len(kept)) + b"".join(kept)
    return data[:at] + directory.ljust(end - at, b"\0") + data[end:]


# --- HEIF and AVIF ---------------------------------------------------------------------------------


def _bare_boxes(data: bytes) -> bytes:
    """EXIF's items become free ones; turning is told by properties of the picture (ISO 23008-12)."""
    at, size = 0, 8
    while at + 8 <= len(data) and size >= 8:
        size, kind = struct.unpack_from(">L4s", data, at)
        if kind == b"meta":
            return data[:at] + _without_exif(data[at : at + size]) + data[at + size :]
        at += size
    return data


def _without_exif(meta: bytes) -> bytes:
    places = [item.end() for item in _EXIF_ITEM.finditer(meta)]
    for at in places:
        meta = meta[:at] + b"free" + meta[at + 4 :]
    return meta
