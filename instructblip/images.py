"""Picture intake: bytes or a path → a safe, upright RGB picture; LAVIS's own intake beside it.

Two intakes exist on purpose. The page turns a phone photo upright and puts transparent pictures
on white (:func:`prepare`). ``infer`` treats a picture as LAVIS does (:func:`open_as_lavis`): the
alpha channel is dropped and the EXIF orientation ignored, so that answers stay comparable.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from instructblip.errors import PictureError

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 64_000_000  # 64 megapixels: above any phone, far below a decompression bomb
MAX_LENGTH = 32_768  # pixels on a side as it comes: above browsers' longest screenshots (32,767)
MAX_SIDE = 2048  # what is kept; the model itself sees far fewer pixels
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")  # MPO opens as JPEG
# CLIP's statistics, as LAVIS's BlipImageBaseProcessor uses them (lavis/processors/blip_processors.py).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_DEEP = ("I;16", "I;16B", "I;16L", "I", "F")  # modes of more than 8 bits


@dataclass(frozen=True, slots=True)
class Prepared:
    """A picture as it is kept and shown: encoded ``data`` of an upright RGB picture."""

    data: bytes
    width: int
    height: int
    mime: str
    format: str  # of the original


def prepare(
    data: bytes,
    *,
    max_bytes: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    max_side: int = MAX_SIDE,
) -> Prepared:
    """Check, turn upright, composite on white, bound the size, and encode again.

    Encoding again drops metadata (a phone's position among it) and whatever hid behind the pixels.
    Of an animation the first frame counts.

    Args:
        data: the file's bytes.
        max_bytes: largest file, in bytes.
        max_pixels: largest width × height before reduction.
        max_side: the longer side after reduction, in pixels.

    Raises:
        PictureError: codes ``picture_empty``, ``picture_too_large``, ``picture_heic``,
            ``picture_unreadable``, ``picture_bomb``, ``picture_long``, ``picture_truncated``.
        MemoryError: there is not enough memory to decode it.
    """
    picture, kind = _decode(data, max_bytes, max_pixels, enough=2 * max_side)
    if max(picture.size) > max_side:  # first of all: every copy of a large one takes 256 MB
        picture = _smooth(picture)
        picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    picture = upright_rgb(picture)
    # JPEG in, JPEG out; everything else stays lossless, unless that would be large.
    out = io.BytesIO()
    lossless = kind not in ("JPEG", "MPO")
    if lossless:
        picture.save(out, "PNG", compress_level=4)
        lossless = out.tell() <= 4 * 2**20
    if not lossless:
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=92)
    mime = "image/png" if lossless else "image/jpeg"
    return Prepared(out.getvalue(), picture.width, picture.height, mime, kind)


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation and composite transparency on white; returns mode RGB."""
    picture = ImageOps.exif_transpose(picture)
    if _transparent(picture):
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(ground, picture)
    if picture.mode in _DEEP:
        picture = _to_eight_bits(picture)
    return picture.convert("RGB")


def _smooth(picture: Image.Image) -> Image.Image:
    """The picture in a mode that can be reduced: palettes, colour keys and 16 bits cannot."""
    if picture.mode in ("P", "PA") or "transparency" in picture.info:
        return picture.convert("RGBA" if _transparent(picture) else "RGB")
    if picture.mode == "1":
        return picture.convert("L")
    return _to_eight_bits(picture) if picture.mode in _DEEP else picture


def _transparent(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info


def open_upright(data: bytes) -> Image.Image:
    """Decode bytes that :func:`prepare` may have made into an upright RGB picture.

    Raises:
        PictureError: as :func:`prepare`.
    """
    return upright_rgb(_decode(data, MAX_BYTES, MAX_PIXELS)[0])


def open_as_lavis(path: str | Path) -> Image.Image:
    """Open a file as LAVIS's demo does: ``Image.open(path).convert("RGB")``, alpha dropped, EXIF ignored.

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
    picture, _ = _decode(data, MAX_BYTES, MAX_PIXELS, name=str(path))
    return picture.convert("RGB")


def _decode(
    data: bytes, max_bytes: int, max_pixels: int, name: str = "", enough: int = 0
) -> tuple[Image.Image, str]:
    """The first frame, fully loaded, and its format.

    ``enough``: a JPEG may be decoded at a half, fourth or eighth of its size whose longer side still
    has so many pixels; 0: never reduced.
    """
    called = f" {name}" if name else ""
    if not data:
        raise PictureError(
            f"The file{called} is empty (0 bytes). Choose another picture.", code="picture_empty"
        )
    if len(data) > max_bytes:
        raise too_large(len(data), max_bytes, called)
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        raise PictureError(
            f"The file{called} is a HEIC picture, which cannot be read here. "
            "Save it as JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible).",
            code="picture_heic",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            _refuse_bomb(picture, max_pixels, called)
            kind = picture.format or ""
            picture.seek(0)
            if enough:
                share = enough / max(picture.size)
                picture.draft(None, (_part(picture.width, share), _part(picture.height, share)))
            picture.load()
    except Image.DecompressionBombError:
        raise _bomb(called, 0, 0, max_pixels) from None
    except UnidentifiedImageError:
        raise PictureError(
            f"The file{called} is not a picture that can be read here. "
            "Use PNG, JPEG, WebP, GIF, BMP or TIFF.",
            code="picture_unreadable",
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError) as error:
        if "out of memory" in str(error):  # as Pillow's own decoders say it
            raise MemoryError(str(error)) from error
        raise PictureError(
            f"The picture{called} is damaged or cut short ({error}). Send it again.",
            code="picture_truncated",
        ) from error
    return picture, kind


def too_large(size: int, max_bytes: int, called: str = "") -> PictureError:
    """The error of a file of too many bytes."""
    return PictureError(
        f"The file{called} is {size / 2**20:.0f} MB; at most {max_bytes / 2**20:.0f} MB "
        "are taken. Save it smaller.",
        code="picture_too_large",
        size=f"{size / 2**20:.0f}",
        limit=f"{max_bytes / 2**20:.0f}",
    )


def _refuse_bomb(picture: Image.Image, max_pixels: int, called: str) -> None:
    if picture.width * picture.height > max_pixels:
        raise _bomb(called, picture.width, picture.height, max_pixels)
    if max(picture.size) > MAX_LENGTH:
        size = f"{picture.width}×{picture.height}"
        raise PictureError(
            f"The picture{called} has {size} pixels; at most {MAX_LENGTH} are taken on a side. "
            "Cut a part of it out, or save it smaller.",
            code="picture_long",
            size=size,
            limit=MAX_LENGTH,
        )


def _part(length: int, share: float) -> int:
    return max(int(length * share), 1)


def _bomb(called: str, width: int, height: int, max_pixels: int) -> PictureError:
    size = f"{width}×{height} pixels" if width else "far too many pixels"
    return PictureError(
        f"The picture{called} has {size}; at most {max_pixels / 1e6:.0f} megapixels are taken. "
        "Save it smaller.",
        code="picture_bomb",
        size=size,
        limit=f"{max_pixels / 1e6:.0f}",
    )


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    """Scale 16-bit and float greys to 8 bits by their range; PIL's own conversion clips them."""
    low, high = picture.convert("F").getextrema()
    span = max(float(high) - float(low), 1.0)  # type: ignore[arg-type]
    top = 65535.0 if picture.mode.startswith("I;16") else float(low) + span  # type: ignore[arg-type]
    floor = 0.0 if picture.mode.startswith("I;16") else float(low)  # type: ignore[arg-type]
    return picture.convert("F").point(lambda v: (v - floor) * (255.0 / (top - floor))).convert("L")
