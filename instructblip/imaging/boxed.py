"""AVIF and HEIF: pictures in boxes. AVIF is read by Pillow, HEIF (HEIC) by libheif through pi-heif.

A brand does not tell which of the two a file is (``mif1`` may be either), so its content decides:
AVIF is tried first, because libheif takes such a file and then finds no decoder for it.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import Any

from PIL import Image

from instructblip.errors import PictureError
from instructblip.imaging import icc
from instructblip.imaging.orientation import in_exif, turned

# Brands that say "a picture": ISO 23008-12, 23000-22 (MIAF), AVIF 1.1, and makers' own. Not in it
# are those of films, which may hold pictures too.
_BRANDS = re.compile(
    rb"mif[123]|msf1|miaf|MiH[ABEe]|MiPr|MiAn|MA1[AB]|av[ic][fsio]|he[iv][cmsx]|jpe[gs]|j2[ki][1is]|vvi[cs]|tmap"
)
_LACKING = re.compile("not been built in|Unsupported feature")  # libheif, of codecs and the like
_NCLX = re.compile(rb"colrnclx\0(.)\0(.)", re.DOTALL)  # codes of ITU-T H.273


def is_boxed(data: bytes) -> bool:
    """Whether a file is one of boxes, as HEIF's, AVIF's and MP4's are."""
    return data[4:8] == b"ftyp"


def is_picture(data: bytes) -> bool:
    """Whether one of the brands of a file of boxes is a picture's."""
    size = min(int.from_bytes(data[:4], "big"), 1024)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, size, 4))]
    return any(_BRANDS.fullmatch(brand) for brand in brands)


def read(
    data: bytes, check: Callable[[tuple[int, int]], None], called: str = ""
) -> tuple[Image.Image, str, bytes | None]:
    """The picture of a file of boxes, turned as its own properties say.

    Args:
        data: the file.
        check: called with (width, height) before it is decoded; to raise.
        called: the file's name with a blank before it, for messages; or empty.

    Returns:
        the picture, ``AVIF`` or ``HEIF``, and the ICC profile of its colours (None: sRGB).

    Raises:
        PictureError: ``picture_heic``: HEIF that cannot be read here.
        Exception: whatever the decoder says of a damaged one.
    """
    try:
        coded = _open_avif(data)
    except MemoryError:
        raise
    except Exception:
        if b"av1C" in data and b"hvcC" not in data:
            raise
        picture, kind = _read_heif(data, check, called), "HEIF"
    else:
        check(coded.size)
        coded.load()
        # Pillow tells the turn as EXIF. The file's own EXIF is not there any more, and counts for
        # nothing: AVIF and HEIF turn by properties alone. libheif turns by itself.
        picture, kind = turned(coded, in_exif(coded.info.get("exif") or b"")), "AVIF"
    return picture, kind, picture.info.get("icc_profile") or _coded_profile(picture, data, kind)


def _open_avif(data: bytes) -> Image.Image:
    from PIL import AvifImagePlugin

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # other pictures are read beside it
    return AvifImagePlugin.AvifImageFile(io.BytesIO(_branded(data, b"avif")))


def _read_heif(data: bytes, check: Callable[[tuple[int, int]], None], called: str) -> Image.Image:
    try:
        import pi_heif  # type: ignore[import-untyped]
    except ImportError as error:
        raise _not_here(called, "pi-heif is not installed") from error
    options = pi_heif.options
    options.DECODE_THREADS = 1  # other pictures are read beside it
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    try:
        heif = pi_heif.open_heif(io.BytesIO(_branded(data, b"heic")))
        if not len(heif):
            raise _not_here(called, "it holds no picture in HEVC")
        check(heif.size)
        picture: Image.Image = heif.to_pillow()
    except (RuntimeError, SyntaxError) as error:
        if _LACKING.search(str(error)):
            raise _not_here(called, " ".join(str(error).split())) from error
        raise
    return picture


def _branded(data: bytes, brand: bytes) -> bytes:
    """The file with a brand that its decoder goes by, where it is a still picture by its boxes.

    The decoders refuse what is not said to be theirs; here the boxes are looked at, not the label.
    """
    kinds, at = set[bytes](), 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">L4s", data, at)
        kinds.add(kind)
        if size < 8:  # to the end of the file, or of a size in 64 bits: no ``meta`` is
            break
        at += size
    if b"meta" not in kinds:  # nothing but a sequence
        return data
    others = max(int.from_bytes(data[:4], "big") // 4 - 4, 0)  # the compatible ones
    return data[:8] + brand + data[12:16] + brand * others + data[16 + 4 * others :]


def _coded_profile(picture: Image.Image, data: bytes, kind: str) -> bytes | None:
    """The colours by the codes that stand in the file; libheif knows those of the primary picture."""
    codes: dict[str, Any] = picture.info.get("nclx_profile") or {}
    if codes:
        primaries, transfer = codes["color_primaries"], codes["transfer_characteristics"]
    elif kind == "AVIF" and (found := _NCLX.search(data)):
        primaries, transfer = found[1][0], found[2][0]
    else:
        return None
    return icc.from_code(int(primaries), int(transfer), grey=picture.mode in ("L", "I;16"))


def _not_here(called: str, why: str) -> PictureError:
    return PictureError(
        f"The file{called} is a HEIC picture that cannot be read here ({why}). "
        "Save it as JPEG (on an iPhone: Settings, Camera, Formats, Most Compatible).",
        code="picture_heic",
    )
