"""HEIC and AVIF: by content, whatever the brand; turned once; refused in words where damaged."""

import io
import struct
import sys
from pathlib import Path

import pytest
from PIL import Image

from instructblip.errors import PictureError
from instructblip.images import open_as_lavis, open_upright, prepare
from tests.exif_bytes import exif
from tests.heif_file import QUARTERS, SIZE, box, heic

DATA = Path(__file__).parents[2] / "data" / "pictures"
AVIF = (DATA / "real.avif").read_bytes()
# ISO 23008-12, 23000-22, AVIF 1.1: pictures and sequences, what makes use of them, and profiles.
BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2",
          b"msf1", b"miaf", b"MiHA", b"MiHB", b"MiHE", b"MiPr", b"avif", b"avis", b"avio", b"MA1A",
          b"MA1B", b"tmap", b"mif3")  # fmt: skip
LATE = ((b"mif1", b"heic", b"miaf"), (b"isom", b"mif1"))


def quarters(image: Image.Image) -> list[tuple[int, int, int]]:
    """The colours of the four quarters, row by row."""
    w, h = image.size
    places = [
        (w // 4, h // 4),
        (3 * w // 4, h // 4),
        (w // 4, 3 * h // 4),
        (3 * w // 4, 3 * h // 4),
    ]
    return [image.getpixel(at) for at in places]  # type: ignore[misc]


def are(seen: list[tuple[int, int, int]], order: str) -> bool:
    """Whether these are the quarters in this order, by their numbers."""
    wanted = [QUARTERS[int(n)] for n in order]
    return all(
        abs(a - b) < 8 for s, w in zip(seen, wanted, strict=True) for a, b in zip(s, w, strict=True)
    )


def code_of(data: bytes) -> str:
    with pytest.raises(PictureError) as caught:
        prepare(data)
    return caught.value.code


def branded_avif(major: bytes, others: tuple[bytes, ...]) -> bytes:
    others = (others * 4)[:4]
    return AVIF[:8] + major + AVIF[12:16] + b"".join(others) + AVIF[32:]


@pytest.mark.parametrize("brand", BRANDS)
def test_every_brand_of_a_heic(brand: bytes) -> None:
    for others in ((brand,), *LATE):
        kept = prepare(heic(brand=brand, brands=others))
        assert (kept.width, kept.height, kept.format) == (*SIZE, "HEIF")
        assert are(quarters(open_upright(kept.data)), "0123")
    for late in LATE[0]:
        assert prepare(heic(brand=b"isom", brands=(b"iso8", late))).format == "HEIF"


@pytest.mark.parametrize("brand", BRANDS)
def test_every_brand_of_an_avif(brand: bytes) -> None:
    wanted = prepare(AVIF).data
    for others in ((brand,), (b"avif", b"mif1", b"miaf"), *LATE):
        kept = prepare(branded_avif(brand, others))
        assert kept.format == "AVIF"
        assert kept.data == wanted


def test_the_pictures_that_browsers_make() -> None:
    for name in ("real.avif", "avif-mif1.avif"):
        kept = prepare((DATA / name).read_bytes())
        assert (kept.format, kept.width, kept.height) == ("AVIF", 224, 224)
        assert open_as_lavis(DATA / name).size == (224, 224)


# --- turning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("turn", "order"), [(0, "0123"), (1, "1302"), (2, "3210"), (3, "2031")])
@pytest.mark.parametrize("orientation", [None, 1, 6, 8])
def test_a_heic_is_turned_by_its_property_and_once(
    turn: int, order: str, orientation: int | None, tmp_path: Path
) -> None:
    data = heic(turn=turn, exif=exif(orientation) if orientation else b"")
    (tmp_path / "a.heic").write_bytes(data)
    for image in (open_upright(prepare(data).data), open_as_lavis(tmp_path / "a.heic")):
        assert image.size == (SIZE if turn % 2 == 0 else SIZE[::-1])
        assert are(quarters(image), order)


@pytest.mark.parametrize("value", range(1, 9))
def test_an_avif_is_turned_by_its_property_and_once(value: int, tmp_path: Path) -> None:
    image = Image.new("RGB", SIZE)
    for n, colour in enumerate(QUARTERS):
        image.paste(colour, (n % 2 * 32, n // 2 * 24, n % 2 * 32 + 32, n // 2 * 24 + 24))
    out = io.BytesIO()
    tags = Image.Exif()
    tags[274] = value  # Pillow writes the property in its place
    image.save(out, "AVIF", quality=95, exif=tags)
    wanted = [
        "0123", "1032", "3210", "2301", "0213", "2031", "3120", "1302",
    ][value - 1]  # fmt: skip
    (tmp_path / "a.avif").write_bytes(out.getvalue())
    for kept in (open_upright(out.getvalue()), open_as_lavis(tmp_path / "a.avif")):
        assert are(quarters(kept), wanted)


def test_the_telephones_own_picture() -> None:
    """irot and EXIF's 6 in a file of 48 tiles in Display P3; an arrow that points up."""
    data = (DATA / "iphone.heic").read_bytes()
    kept = prepare(data)
    assert (kept.width, kept.height, kept.format) == (1536, 2048, "HEIF")
    image = open_upright(kept.data).convert("L").resize((75, 100))
    dark = [[image.getpixel((x, y)) < 70 for x in range(75)] for y in range(100)]  # type: ignore[operator]
    rows = [n for n, row in enumerate(dark) if any(row)]
    assert rows[0] < 15  # the tip, above
    tip, shaft = dark[rows[0]], dark[60]
    assert 30 < tip.index(True) < 45
    assert shaft.index(True) < 30 < 75 - shaft[::-1].index(True)
    assert not Image.open(io.BytesIO(kept.data)).getexif()
    assert b"Apple" not in kept.data


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"avc1", b"av01", b"jpeg", b"j2k1", b"vvc1", b"unci"])
def test_a_heif_that_is_not_hevc_is_refused_in_words(kind: bytes) -> None:
    with pytest.raises(PictureError, match="Save it as JPEG") as caught:
        prepare(heic(kind=kind))
    assert caught.value.code == "picture_heic"


@pytest.mark.parametrize(
    ("kind", "configuration"),
    [
        (b"avc1", box(b"avcC", b"\1\x42\0\x0a\xff\xe0\0")),
        (b"vvc1", box(b"vvcC", bytes(8), version=0)),
    ],
)
def test_a_heif_in_another_codec_is_refused_in_words(kind: bytes, configuration: bytes) -> None:
    assert code_of(heic(kind=kind, configuration=configuration)) == "picture_heic"


@pytest.mark.parametrize("keep", [0.99, 0.7, 0.3, 0.1])
@pytest.mark.parametrize("data", [AVIF, heic()], ids=["avif", "heic"])
def test_a_cut_one_is_damaged(data: bytes, keep: float) -> None:
    assert code_of(data[: int(len(data) * keep)]) == "picture_truncated"


@pytest.mark.parametrize("brand", [b"isom", b"mp42", b"qt  ", b"M4A ", b"crx ", b"3gp5"])
def test_a_film_is_no_picture(brand: bytes) -> None:
    box = struct.pack(">L4s4sL4s", 20, b"ftyp", brand, 0, brand)
    assert code_of(box + struct.pack(">L4s", 8, b"moov") + bytes(100)) == "picture_unreadable"


def test_without_its_decoder_a_heic_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    assert code_of(heic()) == "picture_heic"
    assert prepare(AVIF).format == "AVIF"


@pytest.mark.parametrize(
    ("width", "height", "code"),
    [
        (9000, 9000, "picture_bomb"),
        (32_769, 8, "picture_long"),
        (2**31, 2**31, "picture_too_hungry"),
    ],
)
def test_the_size_is_bounded_before_it_is_decoded(width: int, height: int, code: str) -> None:
    told = struct.pack(">LL", width, height)
    assert code_of(heic().replace(struct.pack(">LL", *SIZE), told)) == code
    avif = AVIF.replace(struct.pack(">LL", 224, 224), told)
    assert code_of(avif) == (code if code == "picture_bomb" else "picture_truncated")


def test_a_size_that_is_told_wrongly_is_damage() -> None:
    data = heic().replace(struct.pack(">LL", *SIZE), struct.pack(">LL", 8, 8))
    assert code_of(data) == "picture_truncated"


def test_the_first_picture_of_a_sequence_counts() -> None:
    out = io.BytesIO()
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    frames[0].save(out, "AVIF", save_all=True, append_images=frames[1:])
    for brand in (b"avis", b"avif", b"mif1"):
        data = out.getvalue()[:8] + brand + out.getvalue()[12:]
        assert open_upright(prepare(data).data).getpixel((9, 9))[0] > 200  # type: ignore[index]
