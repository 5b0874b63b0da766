"""A file's bytes → the first frame as it is coded, loaded; every failure is a PictureError."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from PIL import Image, ImageChops, UnidentifiedImageError

from instructblip.errors import PictureError
from instructblip.imaging import boxed, jpeg_end
from instructblip.imaging.bare import bare

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF")  # MPO opens as JPEG
NO_END = "picture_no_end"  # the code of a note
MAX_LENGTH = 32_768  # pixels on a side as it comes: above browsers' longest screenshots (32,767)
_PLAIN = FORMATS[:6]  # by Pillow alone
_HUNGRY = ("out of memory", "memory allocation", "allocating")  # how decoders say it


@dataclass(frozen=True, slots=True)
class Decoded:
    """``picture`` as it is coded; ``turn``: EXIF's orientation, 1 to 8, which it still needs.

    ``profile``: the ICC profile of its colours, None for sRGB. ``notes``: codes of what its user
    should know.
    """

    picture: Image.Image
    format: str
    turn: int = 1
    profile: bytes | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def guarded(called: str, max_pixels: int) -> Iterator[None]:
    """Whatever a library raises about a picture becomes a PictureError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PictureError:
        raise
    except MemoryError:
        raise too_hungry(called) from None
    except Image.DecompressionBombError:
        raise _bomb(called, 0, 0, max_pixels) from None
    except UnidentifiedImageError:
        raise unreadable(called) from None
    except Exception as error:  # a damaged file makes Pillow raise anything at all
        why = " ".join(str(error).split())
        if any(words in why.lower() for words in _HUNGRY):
            raise too_hungry(called) from error
        raise PictureError(
            f"The picture{called} is damaged or cut short ({why}). Send it again.",
            code="picture_truncated",
        ) from error


def decode(
    data: bytes, max_bytes: int, max_pixels: int, called: str = "", enough: int = 0
) -> Decoded:
    """Read a file; to be called under :func:`guarded`.

    Args:
        called: the file's name with a blank before it, for messages; or empty.
        enough: a JPEG may be decoded at a half, fourth or eighth of its size whose longer side
            still has so many pixels; 0: never reduced.

    Raises:
        PictureError: as :func:`instructblip.images.prepare`.
    """
    if not data:
        raise PictureError(
            f"The file{called} is empty (0 bytes). Choose another picture.", code="picture_empty"
        )
    if len(data) > max_bytes:
        raise too_large(len(data), max_bytes, called)
    without, refuse = bare(data), partial(_refuse, max_pixels, called)
    data, notes = without.data, tuple[str, ...]()
    if boxed.is_boxed(data):
        if not boxed.is_picture(data):
            raise unreadable(called)
        picture, kind, profile = boxed.read(data, refuse, called)
    else:
        picture, kind, notes = _read(data, refuse, enough)
        profile = without.profile or picture.info.get("icc_profile")
    if kind == "PNG":
        picture = _as_the_png_says(picture, data)
    profile = profile if isinstance(profile, bytes) else None
    return Decoded(picture, kind, without.orientation, profile, notes)


def _read(
    data: bytes, refuse: Callable[[tuple[int, int]], None], enough: int
) -> tuple[Image.Image, str, tuple[str, ...]]:
    """What Pillow reads by itself: the picture, its format, notes."""
    picture: Image.Image = Image.open(io.BytesIO(data), formats=_PLAIN)
    kind = picture.format or ""
    refuse(picture.size)
    no_end = kind in ("JPEG", "MPO") and jpeg_end.lacks_end(data)
    try:
        _load(picture, enough)
    except (OSError, SyntaxError):
        whole = jpeg_end.whole_without_end(data, _jpeg) if no_end else None
        if whole is None:
            raise
        picture = whole
    return picture, kind, (NO_END,) if no_end else ()


def _load(picture: Image.Image, enough: int) -> None:
    if enough:
        share = enough / max(picture.size)
        width, height = (max(int(length * share), 1) for length in picture.size)
        picture.draft(None, (width, height))
    picture.load()


def _jpeg(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data), formats=("JPEG",))
    picture.load()
    return picture


def _as_the_png_says(picture: Image.Image, data: bytes) -> Image.Image:
    """A PNG's transparent value in the picture's own terms, where Pillow keeps the file's.

    Greys of 2 and 4 bits are scaled to 8, the value is not; of colours of 16 bits the upper half is
    kept, and the value is whole. Greys with alpha of 16 bits, which Pillow makes RGBA, become LA.
    """
    key, bits, colour = picture.info.get("transparency"), data[24], data[25]
    if colour == 4 and picture.mode == "RGBA":
        return picture.convert("LA")
    if picture.mode == "L" and isinstance(key, int) and bits in (2, 4):
        picture.info["transparency"] = key * 255 // (2**bits - 1)
    elif picture.mode == "RGB" and isinstance(key, tuple) and bits == 16:
        alpha = _sixteen_bit_alpha(picture, data, key)
        picture.info.pop("transparency")
        picture.putalpha(alpha)
    return picture


def _sixteen_bit_alpha(picture: Image.Image, data: bytes, key: tuple[int, ...]) -> Image.Image:
    """0 where all three values of 16 bits are the transparent ones."""
    lower = Image.open(io.BytesIO(data), formats=("PNG",))
    # Read as if its bytes were swapped, the lower half comes out.
    lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]  # type: ignore[attr-defined]
    lower.load()
    alpha = Image.new("L", picture.size)
    for half, shift in ((picture, 8), (lower, 0)):
        for band, value in zip(half.split(), key, strict=True):
            same = value >> shift & 255
            other = band.point([0 if v == same else 255 for v in range(256)])
            alpha = ImageChops.lighter(alpha, other)
    return alpha


# --- what is refused -------------------------------------------------------------------------------


def too_large(size: int, max_bytes: int, called: str = "") -> PictureError:
    """The error of a file of too many bytes."""
    return PictureError(
        f"The file{called} is {size / 2**20:.0f} MB; at most {max_bytes / 2**20:.0f} MB "
        "are taken. Save it smaller.",
        code="picture_too_large",
        size=f"{size / 2**20:.0f}",
        limit=f"{max_bytes / 2**20:.0f}",
    )


def too_hungry(called: str = "") -> PictureError:
    """The error of a picture for which there is not enough memory."""
    return PictureError(
        f"There is not enough memory to read the picture{called}. Save it anew, smaller or in "
        "another format.",
        code="picture_too_hungry",
    )


def unreadable(called: str = "") -> PictureError:
    """The error of a file that is no picture."""
    return PictureError(
        f"The file{called} is not a picture that can be read here. "
        "Use PNG, JPEG, WebP, HEIC, AVIF, GIF, BMP or TIFF.",
        code="picture_unreadable",
    )


def _refuse(max_pixels: int, called: str, size: tuple[int, int]) -> None:
    """Raise where a picture has too many pixels, or is too long."""
    width, height = size
    if width * height > max_pixels:
        raise _bomb(called, width, height, max_pixels)
    if max(size) > MAX_LENGTH:
        raise PictureError(
            f"The picture{called} has {width}×{height} pixels; at most {MAX_LENGTH} are taken on a "
            "side. Cut a part of it out, or save it smaller.",
            code="picture_long",
            size=f"{width}×{height}",
            limit=MAX_LENGTH,
        )


def _bomb(called: str, width: int, height: int, max_pixels: int) -> PictureError:
    size = f"{width}×{height} pixels" if width else "far too many pixels"
    return PictureError(
        f"The picture{called} has {size}; at most {max_pixels / 1e6:.0f} megapixels are taken. "
        "Save it smaller.",
        code="picture_bomb",
        size=size,
        limit=f"{max_pixels / 1e6:.0f}",
    )
