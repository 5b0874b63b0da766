"""EXIF: the orientation counts, and nothing else of it can spoil a sound picture."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from instructblip.images import open_as_lavis, open_upright, prepare
from instructblip.imaging.bare import bare
from tests.exif_bytes import ORIENTATION, exif, odd_ones
from tests.heif_file import heic
from tests.png_file import chunk

DATA = Path(__file__).parents[2] / "data" / "pictures"
SIZE = (32, 16)
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")


def plain(kind: str, **options: object) -> bytes:
    """A red picture with a blue left half, 32 × 16."""
    image = Image.new("RGB", SIZE, "red")
    image.paste("blue", (0, 0, 16, 16))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def with_exif(kind: str, body: bytes) -> bytes:
    """A file with these bytes as its EXIF, whatever an encoder would say of them."""
    if kind == "HEIF":
        return heic(exif=body)
    if kind == "TIFF":
        return tiff(body)
    held = exif(None, (270, 2, 4, b"abc\0")).ljust(len(body), b"\0")  # what an encoder accepts
    return plain(kind, exif=b"Exif\0\0" + held).replace(held, body)


def tiff(body: bytes) -> bytes:
    """EXIF is a TIFF without pixels: put some in."""
    first = struct.unpack_from("<L", body, 4)[0]
    count = struct.unpack_from("<H", body, first)[0]
    entries = [body[first + 2 + 12 * n :][:12] for n in range(count)]
    tail = struct.unpack_from("<L", body, first + 2 + 12 * count)[0]
    body += b"\0" * (len(body) % 2)
    pixels = len(body)
    at = pixels + 3 * 32 * 16
    values = {256: (3, 32), 257: (3, 16), 258: (3, 8), 259: (3, 1), 262: (3, 2), 273: (4, pixels),
              277: (3, 3), 278: (3, 16), 279: (4, 3 * 32 * 16)}  # fmt: skip
    for tag, (kind, value) in values.items():
        many = 3 if tag == 258 else 1
        value = at + 2 + 12 * (count + len(values)) + 4 if tag == 258 else value
        entries.append(struct.pack("<HHLL", tag, kind, many, value))
    entries.sort(key=lambda entry: struct.unpack_from("<H", entry)[0])
    row = b"\0\0\xff" * 16 + b"\xff\0\0" * 16
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<L", tail)
    bits = struct.pack("<3H", 8, 8, 8)
    return body[:4] + struct.pack("<L", at) + body[8:] + row * 16 + directory + bits


@pytest.mark.parametrize("name", ["srational-neg1-0.jpg", "fuzz-18.jpg", "fuzz-85.jpg"])
def test_phone_pictures_with_odd_exif_are_read_and_turned(name: str) -> None:
    kept = prepare((DATA / name).read_bytes())
    assert (kept.width, kept.height) == (48, 64)
    assert open_as_lavis(DATA / name).size == (64, 48)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_odd_entry_in_every_directory(kind: str) -> None:
    wanted = open_upright(with_exif(kind, exif(6))).tobytes()
    assert len(wanted) > 500
    checked = 0
    for what, body in odd_ones():
        data = with_exif(kind, body)
        assert body[-8:] in data or kind == "TIFF", what
        assert open_upright(data).tobytes() == wanted, what
        checked += 1
    assert checked > 1000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("value", range(1, 9))
def test_every_orientation(kind: str, value: int) -> None:
    kept = open_upright(with_exif(kind, exif(value)))
    assert kept.size == (SIZE if value < 5 else SIZE[::-1])
    left, right = ((4, 8), (28, 8)) if value < 5 else ((8, 4), (8, 28))
    blue = left if value in (1, 4, 5, 6) else right
    assert kept.getpixel(blue)[2] > 150
    red = right if blue == left else left
    assert kept.getpixel(red)[0] > 150


@pytest.mark.parametrize(
    ("entry", "turned"),
    [
        ((ORIENTATION, 4, 1, struct.pack("<L", 6)), True),
        ((ORIENTATION, 1, 1, b"\6"), True),
        ((ORIENTATION, 3, 2, struct.pack("<2H", 6, 6)), False),
        ((ORIENTATION, 3, 1, struct.pack("<H", 0)), False),
        ((ORIENTATION, 3, 1, struct.pack("<H", 9)), False),
        ((ORIENTATION, 2, 2, b"6\0"), False),
        ((ORIENTATION, 5, 1, struct.pack("<2L", 6, 1)), False),
        ((ORIENTATION, 11, 1, struct.pack("<f", float("nan"))), False),
    ],
)
def test_an_odd_orientation_is_a_number_or_none(
    entry: tuple[int, int, int, bytes], turned: bool
) -> None:
    data = with_exif("JPEG", exif(None, entry))
    kept = prepare(data)
    assert ((kept.width, kept.height) == SIZE[::-1]) is turned
    assert bare(data).orientation == (6 if turned else 1)


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=60).map(lambda b: b"II*\0" + b)))
@example(b"II*\0\xff\xff\xff\xff")
@example(b"MM\0*\0\0\0\x08\xff\xff\1\x12")
@example(b"II*\0")
def test_any_bytes_as_exif(body: bytes) -> None:
    data = plain("JPEG", exif=b"Exif\0\0" + body)
    assert open_upright(data).size in (SIZE, SIZE[::-1])


def test_an_orientation_in_a_text_of_a_png_and_in_xmp() -> None:
    from PIL import PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    lines = exif(8).hex()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(exif(8)):8}\n{lines}\n", zip=True)
    assert open_upright(plain("PNG", pnginfo=texts)).size == SIZE[::-1]
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert open_upright(plain("JPEG", xmp=xmp)).size == SIZE[::-1]
    assert (
        open_upright(plain("JPEG", xmp=xmp, exif=b"Exif\0\0" + exif(1))).size == SIZE
    )  # EXIF goes first


@pytest.mark.parametrize(
    "key", ["transparency", "gamma", "icc_profile", "exif", "Raw profile type exif"]
)
def test_a_text_of_a_png_is_a_text_only(key: str) -> None:
    from PIL import PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    texts.add_text(key, "no\n number\n of any\n kind")
    texts.add_text("Comment", "x" * 2**21, zip=True)  # more than Pillow would unpack
    assert (
        open_upright(plain("PNG", pnginfo=texts)).tobytes() == open_upright(plain("PNG")).tobytes()
    )


def test_markers_of_a_jpeg_may_be_padded() -> None:
    data = with_exif("JPEG", exif(6))
    at = data.index(b"\xff\xe1")
    assert open_upright(data[:at] + b"\xff" * 9 + data[at:]).size == SIZE[::-1]


def test_exif_in_two_parts_and_behind_the_pixels() -> None:
    whole = exif(6)
    data = plain("JPEG")
    parts = b"".join(
        b"\xff\xe1" + struct.pack(">H", 8 + len(part)) + b"Exif\0\0" + part
        for part in (whole[:15], whole[15:])
    )
    assert open_upright(data[:2] + parts + data[2:]).size == SIZE[::-1]
    late = plain("PNG").replace(chunk(b"IEND", b""), chunk(b"eXIf", whole) + chunk(b"IEND", b""))
    assert open_upright(late).size == SIZE[::-1]


def test_what_tells_the_colours_of_a_jpeg_stays(tmp_path: Path) -> None:
    """RGB that was not converted, which Adobe's segment alone tells."""
    data = plain("JPEG", keep_rgb=True, quality=95)
    for marker, first, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):
        at = data.index(marker)
        for n in range(3):  # no names that tell it too
            place = at + first + n * step
            assert data[place] == b"RGB"[n]
            data = data[:place] + bytes((n + 1,)) + data[place + 1 :]
    (tmp_path / "a.jpg").write_bytes(data)
    for kept in (open_upright(data), open_as_lavis(tmp_path / "a.jpg")):
        assert kept.getpixel((28, 8))[0] > 240  # type: ignore[index]
        assert kept.getpixel((4, 8))[2] > 240  # type: ignore[index]
