"""Metadata is taken out of the file, so that no decoder stumbles over it; the pixels stay."""

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from instructblip.images import open_upright
from instructblip.imaging.bare import bare
from tests.exif_bytes import ORIENTATION, SIZES, directory, exif

# Tags of a TIFF that make no pixels, for which decoders have ideas of their own all the same.
TAGS = (254, 270, 280, 281, 282, 301, 305, 330, 340, 341, 700, 32996, 33723, 34377, 34665, 34853,
        37500, 40965, 65000)  # fmt: skip
VALUES = (b"\xff" * 64, struct.pack("<f", float("nan")) * 16)
SIZE = (16, 12)


def encoded(kind: str, **options: object) -> bytes:
    image = Image.new("RGB", SIZE, "red")
    image.paste("blue", (0, 0, 8, 12))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def with_tag(data: bytes, tag: int, kind: int, count: int, value: bytes) -> bytes:
    """A TIFF whose directory stands at its end, with one more entry."""
    at = struct.unpack_from("<L", data, 4)[0]
    number = struct.unpack_from("<H", data, at)[0]
    entries = [struct.unpack_from("<HHL4s", data, at + 2 + 12 * n) for n in range(number)]
    others = [entry for entry in entries if entry[0] != tag]
    data += b"\0" * (len(data) % 2)
    whole = directory(len(data), [*others, (tag, kind, count, value)])
    return data[:4] + struct.pack("<L", len(data)) + data[8:] + whole


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "jpeg"])
@pytest.mark.parametrize("tag", TAGS)
def test_every_odd_entry_of_a_tiff(tag: int, compression: str | None) -> None:
    data = encoded("TIFF", compression=compression)
    wanted = open_upright(data).tobytes()
    for kind, size in SIZES.items():
        for value in VALUES:
            for count in (1, 3, 2**31):
                odd = with_tag(data, tag, kind, count, value[: size * min(count, 8)])
                assert open_upright(odd).tobytes() == wanted, (kind, value, count)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize(
    ("kind", "count", "turned"),
    [(3, 1, True), (4, 1, True), (3, 2, False), (2, 1, False), (12, 1, False)],
)
def test_the_orientation_of_a_tiff(
    compression: str | None, kind: int, count: int, turned: bool
) -> None:
    data = encoded("TIFF", compression=compression)
    value = struct.pack("<d", 6.0) if kind == 12 else struct.pack("<L", 6)
    image = open_upright(with_tag(data, ORIENTATION, kind, count, value))
    assert image.size == (SIZE[::-1] if turned else SIZE)


def test_an_odd_profile_of_a_tiff_counts_for_nothing() -> None:
    for kind in SIZES:
        for count in (1, 200, 2**31):
            odd = with_tag(encoded("TIFF"), 34675, kind, count, b"x" * 200)
            assert open_upright(odd).size == SIZE


def test_later_pages_of_a_tiff_are_not_looked_at() -> None:
    pages = [Image.new("RGB", SIZE)]
    data = encoded("TIFF", save_all=True, append_images=pages)
    assert Image.open(io.BytesIO(data)).n_frames == 2  # type: ignore[attr-defined]
    assert Image.open(io.BytesIO(bare(data).data)).n_frames == 1  # type: ignore[attr-defined]
    assert open_upright(data).tobytes() == open_upright(encoded("TIFF")).tobytes()


def test_a_big_tiff_is_read() -> None:
    data = encoded("TIFF", big_tiff=True)
    assert data[:4] == b"II+\0"
    assert open_upright(data).tobytes() == open_upright(encoded("TIFF")).tobytes()


def test_a_big_endian_tiff_is_read() -> None:
    pixels = bytes(range(12 * 3))
    tags = {256: 4, 257: 3, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 3, 279: 12}
    entries = [struct.pack(">HHLHH", tag, 3, 1, value, 0) for tag, value in tags.items()]
    data = b"MM\0*" + struct.pack(">L", 20) + pixels[:12] + struct.pack(">H", len(entries))
    image = open_upright(data + b"".join(entries) + bytes(4))
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 2, 3]  # type: ignore[index]


def test_exif_of_a_webp_behind_a_chunk_of_odd_length() -> None:
    data = encoded("WEBP", exif=b"Exif\0\0" + exif(6))
    at = data.index(b"EXIF")
    data = data[:at] + b"ABCD" + struct.pack("<L", 3) + b"xyz\0" + data[at:]
    data = data[:4] + struct.pack("<L", len(data) - 8) + data[8:]
    assert open_upright(data).size == SIZE[::-1]


@given(st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF"]), st.data())
def test_whatever_the_bytes_are_something_is_left(kind: str, data: st.DataObject) -> None:
    whole = encoded(kind)
    at = data.draw(st.integers(0, len(whole)))
    changed = whole[:at] + data.draw(st.binary(max_size=20)) + whole[at:]
    for each in (changed, whole[:at]):
        found = bare(each)
        assert 1 <= found.orientation <= 8
        assert len(found.data) <= len(each) + 4  # a directory of a TIFF gets the end that it lacks
