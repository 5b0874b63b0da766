"""Pictures as users send them: good, odd and hostile."""

import io
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from instructblip.errors import PictureError
from instructblip.images import MAX_SIDE, open_as_lavis, open_upright, prepare


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def code_of(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        prepare(data)
    assert len(str(caught.value)) > 20
    return caught.value.code


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_formats_keep_their_size_and_colour(kind: str) -> None:
    kept = prepare(encoded(Image.new("RGB", (60, 40), (250, 10, 20)), kind))
    assert (kept.width, kept.height, kept.format) == (60, 40, kind)
    pixel = open_upright(kept.data).getpixel((30, 20))
    assert all(abs(a - b) < 12 for a, b in zip(pixel, (250, 10, 20), strict=True))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "I;16", "RGBA", "F"])
def test_modes_become_rgb(mode: str) -> None:
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF" if mode == "F" else "PNG"
    image = Image.new("RGB", (20, 20), "white").convert("L" if mode in ("I;16", "F") else "RGB")
    image = image.convert("I").point(lambda v: v * 257).convert("I;16") if mode == "I;16" else image
    kept = open_upright(prepare(encoded(image.convert(mode), kind)).data)
    assert kept.mode == "RGB"
    if mode != "F":  # a constant float picture has no range to scale by
        assert min(kept.getpixel((10, 10))) > 240


def test_phone_photo_is_turned_upright_and_loses_its_metadata() -> None:
    image = Image.new("RGB", (40, 20), "white")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90°
    exif[0x010F] = "a maker"
    kept = prepare(encoded(image, "JPEG", exif=exif))
    assert (kept.width, kept.height) == (20, 40)
    assert not Image.open(io.BytesIO(kept.data)).getexif()


def test_transparency_is_white_on_the_page_and_dropped_for_lavis(tmp_path) -> None:
    data = encoded(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))
    assert open_upright(prepare(data).data).getpixel((4, 4)) == (255, 255, 255)
    (tmp_path / "a.png").write_bytes(data)
    assert open_as_lavis(tmp_path / "a.png").getpixel((4, 4)) == (255, 0, 0)


def test_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (9, 9), c) for c in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_upright(prepare(data).data).getpixel((4, 4)) == (255, 0, 0)


def test_a_large_picture_is_reduced_and_keeps_its_shape() -> None:
    kept = prepare(encoded(Image.new("RGB", (5000, 2500)), "JPEG"))
    assert (kept.width, kept.height) == (MAX_SIDE, MAX_SIDE // 2)


def test_what_is_no_picture_is_named() -> None:
    assert code_of(b"") == "picture_empty"
    assert code_of(b"%PDF-1.7 hello") == "picture_unreadable"
    assert code_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "picture_unreadable"
    assert code_of(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic") == "picture_truncated"
    assert code_of(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(99)) == "picture_unreadable"
    assert (
        code_of(encoded(Image.effect_noise((300, 300), 90), "JPEG")[:2000]) == "picture_truncated"
    )
    assert code_of(b"x" * (33 * 2**20)) == "picture_too_large"


def test_a_pixel_bomb_is_refused_before_it_is_unpacked() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    assert code_of(b"\x89PNG\r\n\x1a\n" + body) == "picture_bomb"


@pytest.mark.parametrize("size", [(1, 40_000), (40_000, 1), (32_769, 1)])
def test_a_side_is_bounded_too(size: tuple[int, int], tmp_path) -> None:
    data = encoded(Image.new("1", size))
    assert code_of(data) == "picture_long"
    (tmp_path / "long.png").write_bytes(data)
    with pytest.raises(PictureError, match=r"long\.png has .* at most 32768"):
        open_as_lavis(tmp_path / "long.png")


def test_a_panorama_passes() -> None:
    kept = prepare(encoded(Image.new("RGB", (32_768, 64), "red"), "JPEG"))
    assert (kept.width, kept.height) == (MAX_SIDE, 4)


def test_lavis_intake_never_decodes_at_reduced_size(tmp_path) -> None:
    data = encoded(Image.effect_noise((9000, 800), 60).convert("RGB"), "JPEG", quality=50)
    (tmp_path / "large.jpg").write_bytes(data)
    assert prepare(data).width == MAX_SIDE
    assert open_as_lavis(tmp_path / "large.jpg").size == (9000, 800)
    assert open_upright(data).size == (9000, 800)
    with Image.open(tmp_path / "large.jpg") as whole:
        part = (4000, 300, 4100, 400)
        expected = whole.convert("RGB").crop(part).tobytes()
    assert open_as_lavis(tmp_path / "large.jpg").crop(part).tobytes() == expected


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "CMYK", "F"])
def test_what_is_reduced_looks_as_the_whole(mode: str) -> None:
    kind = {"CMYK": "JPEG", "F": "TIFF"}.get(mode, "PNG")
    ground = Image.linear_gradient("L").resize((3000, 2100))
    if mode == "I;16":
        image = ground.convert("I").point(lambda v: v * 257).convert("I;16")
    else:
        image = ground.convert("RGB").convert("L" if mode == "F" else "RGB").convert(mode)
    data = encoded(image, kind)
    kept = open_upright(prepare(data).data)
    whole = open_upright(data).resize(kept.size)
    assert kept.size == (2048, 1434)
    for at in ((1000, 200), (1000, 700), (1000, 1300)):
        box = (at[0] - 8, at[1] - 8, at[0] + 8, at[1] + 8)
        seen, wanted = (p.crop(box).resize((1, 1), Image.Resampling.BOX) for p in (kept, whole))
        pairs = zip(seen.getpixel((0, 0)), wanted.getpixel((0, 0)), strict=True)
        assert all(abs(a - b) < 6 for a, b in pairs)


def test_a_colour_key_is_white_in_a_reduced_picture() -> None:
    image = Image.new("RGB", (3000, 1000), (255, 0, 0))
    image.paste((0, 255, 0), (1500, 0, 3000, 1000))
    kept = open_upright(prepare(encoded(image, transparency=(0, 255, 0))).data)
    assert kept.getpixel((100, 100)) == (255, 0, 0)
    assert kept.getpixel((1900, 100)) == (255, 255, 255)


def test_an_absent_file_is_named(tmp_path) -> None:
    with pytest.raises(PictureError, match=r"nowhere\.png"):
        open_as_lavis(tmp_path / "nowhere.png")


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(1, 500))
def test_damaged_bytes_never_raise_anything_else(at: int, value: int, cut: int) -> None:
    for kind in ("PNG", "GIF", "WEBP", "TIFF"):
        data = bytearray(encoded(Image.effect_noise((16, 16), 50).convert("RGB"), kind))
        data[at % len(data)] = value
        try:
            prepare(bytes(data[:cut] if cut % 3 else data))
        except PictureError as error:
            code = error.code
        else:
            code = "picture_read"
        assert code.startswith("picture_")
