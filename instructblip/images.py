"""Picture intake: bytes or a path → a safe, upright RGB picture; LAVIS's own intake beside it.

Two intakes exist on purpose. The page turns a phone photo upright, puts transparent pictures on
white, scales deep greys and converts colours to sRGB (:func:`prepare`). ``infer`` treats a picture
as LAVIS does (:func:`open_as_lavis`): none of these, so that answers stay comparable; it tells where
the two differ.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from instructblip.errors import PictureError
from instructblip.imaging import icc
from instructblip.imaging.decode import (
    FORMATS,
    MAX_LENGTH,
    NO_END,
    Decoded,
    decode,
    guarded,
    too_large,
)
from instructblip.imaging.depth import clipped, eight_bits
from instructblip.imaging.orientation import turned

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_LENGTH",
    "MAX_PIXELS",
    "MAX_SIDE",
    "NO_END",
    "SUFFIXES",
    "Prepared",
    "note_text",
    "open_as_lavis",
    "open_upright",
    "prepare",
    "too_large",
]  # fmt: skip
# How files of these formats are named, by whoever writes them.
SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".heic", ".heics", ".heif", ".heifs", ".hif", ".avif", ".avifs",
)  # fmt: skip
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000  # 64 megapixels: above any phone, far below a decompression bomb
MAX_SIDE = 2048  # what is kept; the model itself sees far fewer pixels
# CLIP's statistics, as LAVIS's BlipImageBaseProcessor uses them (lavis/processors/blip_processors.py).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_LOSSY = ("JPEG", "MPO", "HEIF")  # photos
_NOTES = {
    NO_END: "The file lacks its end, as after a broken download; all its pixels are there.",
    "lavis_deep": "It has more than 8 bits a pixel; as in LAVIS, values outside 0 to 255 are cut "
    "off. The page scales them.",
    "lavis_colours": "As in LAVIS, its colours are taken for sRGB, which they are not. The page "
    "converts them.",
    "lavis_turned": "As in LAVIS, its EXIF orientation is ignored. The page turns it upright.",
    "lavis_alpha": "As in LAVIS, its transparency is dropped. The page puts it on white.",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture as it is kept and shown: encoded ``data`` of an upright RGB picture.

    ``notes``: codes of what its user should know, see :func:`note_text`.
    """

    data: bytes
    width: int
    height: int
    mime: str
    format: str  # of the original
    notes: tuple[str, ...] = ()


def note_text(code: str) -> str:
    """A note's English sentence."""
    return _NOTES[code]


def prepare(
    data: bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    max_side: int = MAX_SIDE,
) -> Prepared:
    """Check, turn upright, convert to sRGB, composite on white, bound the size, and encode again.

    Encoding again drops metadata (a phone's position among it) and whatever hid behind the pixels.
    Of an animation the first frame counts.

    Args:
        data: the file's bytes.
        max_bytes: largest file, in bytes.
        max_pixels: largest width × height before reduction.
        max_side: the longer side after reduction, in pixels.

    Raises:
        PictureError: codes ``picture_empty``, ``picture_too_large``, ``picture_heic``,
            ``picture_unreadable``, ``picture_bomb``, ``picture_long``, ``picture_truncated``,
            ``picture_too_hungry``.
    """
    with guarded("", max_pixels):
        decoded = decode(data, max_bytes, max_pixels, enough=2 * max_side)
        picture, profile = eight_bits(decoded.picture, decoded.profile)
        if max(picture.size) > max_side:  # first of all: every copy of a large one takes 256 MB
            picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        picture = _on_white(turned(picture, decoded.turn), profile)
        kept, mime = _encoded(picture, lossless=decoded.format not in _LOSSY)
    return Prepared(kept, picture.width, picture.height, mime, decoded.format, decoded.notes)


def open_upright(data: bytes) -> Image.Image:
    """Decode bytes that :func:`prepare` may have made into an upright RGB picture.

    Raises:
        PictureError: as :func:`prepare`.
    """
    with guarded("", MAX_PIXELS):
        decoded = decode(data, MAX_BYTES, MAX_PIXELS)
        picture, profile = eight_bits(decoded.picture, decoded.profile)
        return _on_white(turned(picture, decoded.turn), profile)


def open_as_lavis(path: str | Path, tell: Callable[[str], None] | None = None) -> Image.Image:
    """Open a file as LAVIS's demo does: ``Image.open(path).convert("RGB")``, alpha dropped, EXIF ignored.

    HEIC and AVIF, which LAVIS does not read, are turned as their own properties say.

    Args:
        path: the file.
        tell: called with the code of each note: what the page would do otherwise.

    Raises:
        PictureError: the file is absent or not a picture we can read.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PictureError(
            f"Cannot read the picture {path}: {error.strerror}. Check the path.",
            code="picture_absent",
            name=str(path),
        ) from error
    with guarded(f" {path}", MAX_PIXELS):
        decoded = decode(data, MAX_BYTES, MAX_PIXELS, called=f" {path}")
        if tell is not None:
            for code in (*decoded.notes, *_lavis_differences(decoded)):
                tell(code)
        return _bare(decoded.picture.convert("RGB"))


def _lavis_differences(decoded: Decoded) -> list[str]:
    """What the page would see otherwise."""
    codes = []
    plain, profile = eight_bits(decoded.picture, decoded.profile)
    colours = plain.convert(plain.mode[:-1]) if plain.mode in ("LA", "RGBA") else plain
    if clipped(decoded.picture):
        codes.append("lavis_deep")
    elif icc.differs(colours, profile):
        codes.append("lavis_colours")
    if decoded.turn != 1:
        codes.append("lavis_turned")
    if plain.mode in ("LA", "RGBA") and plain.getchannel("A").getextrema()[0] != 255:
        codes.append("lavis_alpha")
    return codes


def _on_white(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Mode RGB in sRGB, without any metadata; what is transparent becomes white."""
    if picture.mode not in ("LA", "RGBA"):
        return _bare(icc.to_srgb(picture, profile))
    alpha = picture.getchannel("A")
    colours = icc.to_srgb(picture.convert(picture.mode[:-1]), profile)
    colours.putalpha(alpha)
    ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return _bare(Image.alpha_composite(ground, colours).convert("RGB"))


def _bare(picture: Image.Image) -> Image.Image:
    picture.info = {}  # what is saved would carry comments and profiles on
    return picture


def _encoded(picture: Image.Image, lossless: bool) -> tuple[bytes, str]:
    """JPEG in, JPEG out; everything else stays lossless, unless that would be large. → (bytes, MIME)"""
    out = io.BytesIO()
    if lossless:
        picture.save(out, "PNG", compress_level=4)
        if out.tell() <= 4 * 2**20:
            return out.getvalue(), "image/png"
        out = io.BytesIO()
    picture.save(out, "JPEG", quality=92)
    return out.getvalue(), "image/jpeg"
