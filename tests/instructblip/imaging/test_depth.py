"""Modes of every depth, with and without transparency, gamma and small palettes."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from instructblip.images import open_as_lavis, open_upright, prepare
from tests.png_file import DEPTHS, SAMPLES, gamma, key, png

DATA = Path(__file__).parents[2] / "data" / "pictures"
WHITE = (255, 255, 255)
GREYS = [(colour, depth) for colour in (0, 4) for depth in DEPTHS[colour]]
COLOURS = [(colour, depth) for colour in (2, 6) for depth in DEPTHS[colour]]


def pixels(data: bytes) -> list[tuple[int, int, int]]:
    """The first row as the page keeps it."""
    kept = open_upright(prepare(data).data)
    return [kept.getpixel((x, 0)) for x in range(kept.width)]  # type: ignore[misc]


def near(seen: object, wanted: object, by: int = 1) -> bool:
    return all(abs(a - b) <= by for a, b in zip(seen, wanted, strict=True))  # type: ignore[call-overload]


def srgb(light: float) -> int:
    """IEC 61966-2-1: light → value of 8 bits."""
    return round(
        255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)
    )


# --- PNG -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("colour", "depth"), GREYS)
def test_greys_of_every_depth_keep_their_scale(colour: int, depth: int) -> None:
    top = 2**depth - 1
    values = sorted({0, top // 3, top // 2, top})
    alpha = [top] if colour == 4 else []
    seen = pixels(png([[[v, *alpha] for v in values]], colour, depth))
    for value, pixel in zip(values, seen, strict=True):
        assert near(pixel, [round(255 * value / top)] * 3)


@pytest.mark.parametrize("depth", DEPTHS[0])
def test_a_transparent_grey_is_white_and_the_others_stay(depth: int) -> None:
    top = 2**depth - 1
    values = sorted({0, top // 3, top // 2, top})
    for at, hidden in enumerate(values):
        seen = pixels(png([[[v] for v in values]], 0, depth, key(hidden)))
        for other, pixel in enumerate(seen):
            wanted = 255 if other == at else round(255 * values[other] / top)
            assert near(pixel, [wanted] * 3), (hidden, values[other])


@pytest.mark.parametrize("depth", DEPTHS[2])
def test_a_transparent_colour_is_white_and_the_others_stay(depth: int) -> None:
    top = 2**depth - 1
    hidden = (top // 2, top // 3, top // 5)
    # One step beside it, which in 16 bits is the same in the upper half.
    row = [hidden, (hidden[0], hidden[1], hidden[2] + 1), (0, 0, 0), (top, 0, 0)]
    seen = pixels(png([row], 2, depth, key(*hidden)))
    assert seen[0] == WHITE
    for sample, pixel in zip(row[1:], seen[1:], strict=True):
        assert near(pixel, [255 * v // top for v in sample])


@pytest.mark.parametrize("colour", [4, 6])
@pytest.mark.parametrize("depth", [8, 16])
def test_alpha_of_every_depth(colour: int, depth: int) -> None:
    top = 2**depth - 1
    row = [[*[0] * (SAMPLES[colour] - 1), alpha] for alpha in (0, top // 2, top)]
    seen = pixels(png([row], colour, depth))
    assert near(seen[0], WHITE)
    assert near(seen[1], (128, 128, 128), 2)
    assert near(seen[2], (0, 0, 0))


@pytest.mark.parametrize("depth", DEPTHS[3])
@pytest.mark.parametrize("entries", [1, 2, 3, 200])
@pytest.mark.parametrize("alpha", [b"", b"\0", b"\xff\0", b"\x80" * 2])
def test_palettes_of_every_size(depth: int, entries: int, alpha: bytes) -> None:
    entries = min(entries, 2**depth)
    alpha = alpha[:entries]
    palette = [(7 * n % 256, 200 - n, 30) for n in range(entries)]
    chunks = [(b"PLTE", bytes(v for colour in palette for v in colour))]
    chunks += [(b"tRNS", alpha)] if alpha else []
    seen = pixels(png([[[n] for n in range(entries)]], 3, depth, *chunks))
    for n, pixel in enumerate(seen):
        opaque = alpha[n] / 255 if n < len(alpha) else 1.0
        wanted = [v * opaque + 255 * (1 - opaque) for v in palette[n]]
        assert near(pixel, wanted, 2), n


def test_an_index_beyond_the_palette_is_read() -> None:
    data = png([[[0], [1], [3]]], 3, 2, (b"PLTE", bytes((10, 20, 30))))
    assert pixels(data)[0] == (10, 20, 30)


@pytest.mark.parametrize(("colour", "depth"), [*GREYS, *COLOURS])
@pytest.mark.parametrize("value", [1.0, 1 / 1.8, 0.3])
def test_gamma_is_applied_at_every_depth(colour: int, depth: int, value: float) -> None:
    top, alpha = 2**depth - 1, [2**depth - 1] if colour in (4, 6) else []
    samples = sorted({0, top // 2, top})
    count = SAMPLES[colour] - len(alpha)
    seen = pixels(png([[[*[v] * count, *alpha] for v in samples]], colour, depth, gamma(value)))
    for sample, pixel in zip(samples, seen, strict=True):
        assert near(pixel, [srgb((sample / top) ** (1 / value))] * 3, 3), sample


@pytest.mark.parametrize("depth", DEPTHS[0])
def test_gamma_beside_a_transparent_grey(depth: int) -> None:
    top = 2**depth - 1
    seen = pixels(png([[[0], [top // 2], [top]]], 0, depth, gamma(1.0), key(0)))
    assert seen[0] == WHITE
    assert top < 2 or near(seen[1], [srgb((top // 2) / top)] * 3, 3)
    assert near(seen[2], WHITE)


@pytest.mark.parametrize("chunks", [
    [gamma(0.45455)], [gamma(0.0)], [gamma(1000)], [(b"gAMA", b"")], [(b"sRGB", b"\0"), gamma(1.0)],
    [gamma(0.45455), (b"cHRM", struct.pack(">8L", *[0] * 8))],
    [gamma(0.45455), (b"cHRM", struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))],
    [(b"iCCP", b"x")], [(b"iCCP", b"x\0\0no zlib")], [(b"cICP", b"\1\x0d\0\1")], [(b"cICP", b"\xff\xff\0\1")],
])  # fmt: skip
def test_what_says_srgb_or_nothing_leaves_every_value(chunks: list[tuple[bytes, bytes]]) -> None:
    row = [[10, 200, 30], [128, 3, 255]]
    assert pixels(png([row], 2, 8, *chunks)) == [tuple(pixel) for pixel in row]


def test_the_grey_picture_of_16_bits_with_a_key() -> None:
    path = DATA / "png16-grey-trns.png"
    whole = Image.open(path)
    kept = open_upright(prepare(path.read_bytes()).data)
    for at in ((0, 0), (100, 50), (223, 223), (30, 200)):
        assert near(kept.getpixel(at), [whole.getpixel(at) / 257] * 3)  # type: ignore[operator]
    told: list[str] = []
    assert open_as_lavis(path, told.append).getextrema() == ((255, 255),) * 3  # as LAVIS
    assert told == ["lavis_deep"]


# --- TIFF ------------------------------------------------------------------------------------------


def tiff(image: Image.Image, *tags: tuple[int, int], **options: object) -> bytes:
    """A TIFF, some of whose tags are set to other numbers."""
    out = io.BytesIO()
    image.save(out, "TIFF", **options)
    data = bytearray(out.getvalue())
    at = struct.unpack_from("<L", data, 4)[0]
    for entry in range(at + 2, at + 2 + 12 * struct.unpack_from("<H", data, at)[0], 12):
        for tag, value in tags:
            if struct.unpack_from("<H", data, entry)[0] == tag:
                struct.pack_into("<L", data, entry + 8, value)
    return bytes(data)


def ramp(mode: str, values: list[float]) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)  # type: ignore[arg-type]
    return image


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("inverted", [False, True])
def test_tiff_greys_of_16_bits(compression: str | None, inverted: bool) -> None:
    data = tiff(
        ramp("I;16", [0, 20_000, 65_535]),
        *([(262, 0)] if inverted else []),
        compression=compression,
    )
    wanted = [255, 177, 0] if inverted else [0, 78, 255]
    assert [near(p, [w] * 3) for p, w in zip(pixels(data), wanted, strict=True)] == [True] * 3


def test_tiff_greys_of_12_bits() -> None:
    # 4095 and 2048 in three bytes; as three pixels of 8 bits an encoder writes them.
    data = tiff(ramp("L", [0xFF, 0xF8, 0x00]), (258, 12), (256, 2))
    assert near(pixels(data)[0], WHITE)
    assert near(pixels(data)[1], (128, 128, 128))


@pytest.mark.parametrize("values", [[-5.0, 0.0, 5.0], [0.0, 0.5, 1.0], [1e6, 2e6, 3e6]])
def test_tiff_floats_are_scaled_by_their_range(values: list[float]) -> None:
    seen = pixels(tiff(ramp("F", values)))
    assert near(seen[0], (0, 0, 0))
    assert near(seen[1], (127, 127, 127))
    assert near(seen[2], WHITE)


def test_tiff_floats_of_one_value_are_read() -> None:
    assert pixels(tiff(ramp("F", [7.5, 7.5]))) == [(0, 0, 0)] * 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_tiff_floats_that_are_no_numbers_are_read(value: float) -> None:
    seen = pixels(tiff(ramp("F", [0.0, value, 1.0])))
    assert (seen[0], seen[2]) == ((0, 0, 0), WHITE)


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "LA"]
)
def test_every_mode_of_a_tiff(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 20), (250, 250, 250))
    image = image.convert("L").convert(mode) if mode in ("I", "F", "LA") else image.convert(mode)
    image.putpixel((0, 0), 0 if len(image.getbands()) == 1 else tuple([0] * len(image.getbands())))
    data = tiff(image, compression="jpeg" if mode == "YCbCr" else None)
    kept = open_upright(prepare(data).data)
    assert near(kept.getpixel((10, 10)), (250, 250, 250), 6)
    (tmp_path / "a.tiff").write_bytes(data)
    assert open_as_lavis(tmp_path / "a.tiff").mode == "RGB"


# --- LAVIS's own intake ------------------------------------------------------------------------------


KEYS = {0: key(3), 2: key(3, 3, 3), 3: (b"tRNS", b"\0\x80"), 4: gamma(0.9), 6: gamma(0.9)}


@pytest.mark.parametrize(("colour", "depth"), [(c, d) for c in DEPTHS for d in DEPTHS[c]])
@pytest.mark.parametrize("how", ["plain", "gamma", "key"])
@pytest.mark.filterwarnings("ignore:Palette images")
def test_infer_sees_what_pillow_alone_makes_of_it(
    colour: int, depth: int, how: str, tmp_path: Path
) -> None:
    top = 2**depth - 1
    row = [[(n * top // 7 + s) % (top + 1) for s in range(SAMPLES[colour])] for n in range(8)]
    colours = bytes(v % 256 for v in range(3 * min(top + 1, 200)))
    chunks = [(b"PLTE", colours)] if colour == 3 else []
    chunks += {"plain": [], "gamma": [gamma(1.0)], "key": [KEYS[colour]]}[how]
    path = tmp_path / "a.png"
    path.write_bytes(png([row], colour, depth, *chunks))
    assert open_as_lavis(path).tobytes() == Image.open(path).convert("RGB").tobytes()


@pytest.mark.parametrize("colour", DEPTHS)
@pytest.mark.parametrize("length", [0, 1, 3, 7, 300])
def test_a_key_of_a_wrong_length_counts_for_nothing(colour: int, length: int) -> None:
    row = [[n] * SAMPLES[colour] for n in range(3)]
    chunks = [(b"PLTE", bytes(range(12)))] if colour == 3 else []
    plain = pixels(png([row], colour, 8, *chunks))
    keyed = pixels(png([row], colour, 8, *chunks, (b"tRNS", b"\xff" * length)))
    assert keyed == plain


@given(values=st.lists(st.integers(0, 65535), min_size=2, max_size=40))
def test_deep_greys_keep_their_order(values: list[int]) -> None:
    seen = [pixel[0] for pixel in pixels(png([[[v] for v in values]], 0, 16))]
    for value, pixel in zip(values, seen, strict=True):
        assert abs(pixel - value / 257) <= 1
