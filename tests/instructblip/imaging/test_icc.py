"""Colours: what a file says of them is converted to sRGB, and then nothing of it is kept."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from instructblip.images import open_as_lavis, open_upright, prepare
from instructblip.imaging import icc
from tests.heif_file import QUARTERS, heic
from tests.png_file import png

DATA = Path(__file__).parents[2] / "data" / "pictures"
P3, SRGB, LINEAR, PQ, HLG = 12, 13, 8, 16, 18
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
GREEN = (90, 180, 110)


def cmyk_profile() -> bytes:
    """A profile of CMYK → Lab by a table of two steps: no ink is white, all black ink is black.

    Cyan, magenta and yellow are told from what Pillow's own conversion makes of them: they have
    half of its chroma.
    """
    lab = []
    for n in range(16):
        cyan, magenta, yellow, black = (n >> bit & 1 for bit in (3, 2, 1, 0))
        light = 0 if black else 255 - 60 * (cyan + magenta + yellow)
        lab += [light, 128 - 40 * cyan + 40 * magenta, 128 - 40 * cyan + 40 * yellow]
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + struct.pack(
        ">BBBx9l", 4, 3, 2, *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    )
    table += ramp * 4 + bytes(lab) + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3l", 63190, 65536, 54061)
    head = struct.pack(">L4s4s4s4s4s", 0, b"", b"\2\x40\0\0", b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + white[8:]
    tags = struct.pack(">L", 2) + struct.pack(">4sLL", b"wtpt", 156, 20)
    tags += struct.pack(">4sLL", b"A2B0", 176, len(table))
    whole = head.ljust(128, b"\0") + tags + white + table
    return struct.pack(">L", len(whole)) + whole[4:]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0},
                "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})  # fmt: skip
    image.save(out, kind, **lossless, **options)
    return out.getvalue()


def converted(colour: tuple[int, ...], profile: bytes, mode: str = "RGB") -> tuple[int, ...]:
    """What LittleCMS makes of one colour by itself."""
    one = Image.new(mode, (1, 1), colour)
    into = ImageCms.createProfile("sRGB")
    out = ImageCms.profileToProfile(one, io.BytesIO(profile), into, outputMode="RGB")
    assert out is not None
    return out.getpixel((0, 0))  # type: ignore[return-value]


def near(seen: object, wanted: object, by: int = 3) -> bool:
    return all(abs(a - b) <= by for a, b in zip(seen, wanted, strict=True))  # type: ignore[call-overload]


def middle(data: bytes) -> tuple[int, int, int]:
    kept = open_upright(data)
    return kept.getpixel((kept.width // 2, kept.height // 2))  # type: ignore[return-value]


def profile(code: int, curve: int = SRGB, *, grey: bool = False) -> bytes:
    made = icc.from_code(code, curve, grey=grey)
    assert made is not None
    return made


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(60, 40), (3000, 20)])
def test_display_p3_becomes_srgb_in_every_format(kind: str, size: tuple[int, int]) -> None:
    data = encoded(Image.new("RGB", size, GREEN), kind, icc_profile=profile(P3))
    wanted = converted(GREEN, profile(P3))
    assert not near(wanted, GREEN, 10)
    assert near(middle(prepare(data).data), wanted, 5)
    assert near(middle(data), wanted, 5)


def test_the_p3_picture() -> None:
    path = DATA / "icc-P3.jpg"
    picture = Image.open(path)
    wanted = ImageCms.profileToProfile(
        picture, io.BytesIO(picture.info["icc_profile"]), ImageCms.createProfile("sRGB")
    )
    assert wanted is not None
    kept = open_upright(prepare(path.read_bytes()).data)
    plain = Image.open(path).convert("RGB")
    at = [(x, y) for x in range(4, 224, 20) for y in range(4, 224, 20)]
    assert sum(near(kept.getpixel(p), wanted.getpixel(p), 8) for p in at) > 0.95 * len(at)
    assert sum(near(plain.getpixel(p), wanted.getpixel(p), 8) for p in at) < 0.9 * len(at)
    told: list[str] = []
    assert open_as_lavis(path, told.append).tobytes() == plain.tobytes()  # as LAVIS
    assert told == ["lavis_colours"]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_by_its_profile(kind: str, tmp_path: Path) -> None:
    ink = (200, 20, 60, 0)
    made = cmyk_profile()
    data = encoded(Image.new("CMYK", (40, 40), ink), kind, icc_profile=made)
    naive = Image.new("CMYK", (1, 1), ink).convert("RGB").getpixel((0, 0))
    wanted = converted(ink, made, "CMYK")
    assert not near(wanted, naive, 20)
    assert near(middle(prepare(data).data), wanted, 6)
    told: list[str] = []
    (tmp_path / "a").write_bytes(data)
    assert near(open_as_lavis(tmp_path / "a", told.append).getpixel((9, 9)), naive, 6)
    assert told == ["lavis_colours"]
    bare = encoded(Image.new("CMYK", (40, 40), ink), kind)
    assert near(middle(prepare(bare).data), naive, 6)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_greys_go_by_their_profile(mode: str, tmp_path: Path) -> None:
    linear = profile(1, LINEAR, grey=True)
    value = 257 * 60 if mode == "I;16" else 60
    image = Image.new("I;16" if mode == "I;16" else "L", (30, 30), value).convert(mode)
    wanted = converted((60,), linear, "L")
    assert wanted[0] > 120
    data = encoded(image, "PNG", icc_profile=linear)
    assert near(middle(prepare(data).data), wanted)
    told: list[str] = []
    (tmp_path / "a").write_bytes(data)
    open_as_lavis(tmp_path / "a", told.append)
    assert told == ["lavis_deep" if mode == "I;16" else "lavis_colours"]


def test_a_grey_picture_goes_by_a_profile_of_colours() -> None:
    made = profile(1, LINEAR)
    data = encoded(Image.new("L", (30, 30), 60), "JPEG", icc_profile=made)
    assert near(middle(prepare(data).data), converted((60, 60, 60), made))


@pytest.mark.parametrize("alpha", [0, 128, 255])
def test_transparency_and_a_profile(alpha: int) -> None:
    data = encoded(Image.new("RGBA", (9, 9), (*GREEN, alpha)), "PNG", icc_profile=profile(P3))
    solid = converted(GREEN, profile(P3))
    wanted = [v * alpha / 255 + 255 - alpha for v in solid]
    assert near(middle(prepare(data).data), wanted)


@pytest.mark.parametrize("made", [
    b"", b"nonsense", b"x" * 200, b"\0" * 4096, bytes(16) + b"RGB " + bytes(500),
    bytes(16) + b"GRAY" + bytes(500), icc.from_code(P3, SRGB)[:300], cmyk_profile(),
    icc.from_code(1, LINEAR, grey=True),
])  # fmt: skip
@pytest.mark.parametrize("kind", FORMATS)
def test_a_profile_that_cannot_be_used_counts_for_nothing(kind: str, made: bytes) -> None:
    data = encoded(Image.new("RGB", (30, 30), GREEN), kind, icc_profile=made)
    assert near(middle(prepare(data).data), GREEN)


@given(at=st.integers(0, 600), value=st.integers(0, 255))
def test_a_damaged_profile_refuses_no_picture(at: int, value: int) -> None:
    made = bytearray(profile(P3))
    made[at % len(made)] = value
    data = encoded(Image.new("RGB", (8, 8), GREEN), "PNG", icc_profile=bytes(made))
    assert open_upright(prepare(data).data).size == (8, 8)


def test_pictures_that_are_srgb_stay_as_they_are_to_the_bit() -> None:
    image = Image.merge("RGB", [Image.effect_noise((64, 64), 90) for _ in "rgb"])
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    at = struct.unpack_from(">L", srgb, srgb.index(b"rXYZ") + 4)[0] + 8  # red's X, in 1/65536
    red = struct.unpack_from(">l", srgb, at)[0]
    nearly = srgb[:at] + struct.pack(">l", red + 60) + srgb[at + 4 :]  # as other makers round it
    plain = image.tobytes()
    assert converted((200, 10, 10), nearly) != converted((200, 10, 10), srgb)
    for kind in FORMATS[:4]:
        for made in (srgb, nearly):
            data = encoded(image, kind, icc_profile=made)
            assert open_upright(data).tobytes() == (
                plain if kind != "JPEG" else Image.open(io.BytesIO(data)).tobytes()
            )


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_kept(kind: str) -> None:
    options: dict[str, object] = {"icc_profile": profile(P3)}
    if kind in ("JPEG", "PNG", "WEBP", "AVIF"):
        options |= {"exif": Image.Exif(), "xmp": b"<x>a secret</x>"}
        options["exif"][0x010E] = "a secret"  # type: ignore[index]
    if kind == "JPEG":
        options["comment"] = b"a secret"
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Comment", "a secret")
        options["pnginfo"] = texts
    data = encoded(Image.new("RGB", (30, 30), GREEN), kind, **options)
    assert b"secret" in data or kind == "TIFF"
    for image in (Image.open(io.BytesIO(prepare(data).data)), open_upright(data)):
        assert not set(image.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"secret" not in prepare(data).data


# --- colours by codes ------------------------------------------------------------------------------


def test_png_and_heif_tell_colours_by_codes() -> None:
    wanted = converted(GREEN, profile(P3))
    data = png([[GREEN] * 3] * 3, 2, 8, (b"cICP", bytes((P3, SRGB, 0, 1))))
    assert near(middle(prepare(data).data), wanted)
    coded = heic(colours=b"nclx" + struct.pack(">HHHB", P3, SRGB, 6, 0x80))
    whole = open_upright(coded)
    for at, colour in zip(((16, 12), (48, 12), (16, 36), (48, 36)), QUARTERS, strict=True):
        assert near(whole.getpixel(at), converted(colour, profile(P3)), 6)


def test_avif_tells_colours_by_codes() -> None:
    data = encoded(Image.new("RGB", (32, 32), GREEN), "AVIF")
    at = data.index(b"colrnclx") + 8
    coded = data[:at] + struct.pack(">HH", P3, SRGB) + data[at + 4 :]
    assert near(middle(data), GREEN)
    assert near(middle(coded), converted(GREEN, profile(P3)), 5)


@pytest.mark.parametrize("curve", [PQ, HLG])
def test_high_range_is_white_where_white_is(curve: int) -> None:
    white = 148 if curve == PQ else 191  # BT.2408: 58 % and 75 %
    rows = [[[white] * 3, [0] * 3, [white // 2] * 3]]
    seen = open_upright(png(rows, 2, 8, (b"cICP", bytes((9, curve, 0, 1)))))
    assert near(seen.getpixel((0, 0)), (255, 255, 255))
    assert near(seen.getpixel((1, 0)), (0, 0, 0))
    assert 20 < seen.getpixel((2, 0))[0] < 160  # type: ignore[index]


def test_primaries_of_a_png_are_applied() -> None:
    points = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)  # Display P3's
    chunks = ((b"gAMA", struct.pack(">L", 45455)), (b"cHRM", struct.pack(">8L", *points)))
    assert near(middle(png([[GREEN] * 3] * 3, 2, 8, *chunks)), converted(GREEN, profile(P3)), 6)


def test_the_profile_of_display_p3_is_apples() -> None:
    apples = Image.open(DATA / "icc-P3.jpg").info["icc_profile"]
    ours = profile(P3)
    for name in (b"rXYZ", b"gXYZ", b"bXYZ"):
        values = []
        for made in (apples, ours):
            at, size = struct.unpack_from(">LL", made, made.index(name) + 4)
            values.append(struct.unpack(">3l", made[at + 8 : at + size]))
        assert near(*values, by=10)
