"""JPEGs that lack only their end are taken, with a note; those that lack pixels are refused."""

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from instructblip.errors import PictureError
from instructblip.images import NO_END, note_text, open_as_lavis, open_upright, prepare
from instructblip.imaging import jpeg_end

CUT = Path(__file__).parents[2] / "data" / "pictures" / "cut-eoi.jpg"
WAYS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "not subsampled": {"subsampling": 0, "optimize": True},
    "grey": {},
    "cmyk": {},
    "restarts": {"restart_marker_rows": 1},
    "restarts, progressive": {"restart_marker_blocks": 3, "progressive": True},
    "with a comment": {"comment": b"hello"},
}


def jpeg(way: str, size: tuple[int, int] = (160, 120), flat: bool = False) -> bytes:
    mode = {"grey": "L", "cmyk": "CMYK"}.get(way, "RGB")
    noise = [Image.effect_noise(size, 60) for _ in range(len(Image.new(mode, (1, 1)).getbands()))]
    image = Image.new(mode, size) if flat else Image.merge(mode, noise) if mode != "L" else noise[0]
    out = io.BytesIO()
    image.save(out, "JPEG", **WAYS[way])
    return out.getvalue()


def refused(data: bytes) -> bool:
    try:
        prepare(data)
    except PictureError as error:
        return error.code == "picture_truncated"
    return False


def test_the_picture_that_lacks_its_end(tmp_path: Path) -> None:
    data = CUT.read_bytes()
    kept = prepare(data)
    assert kept.notes == (NO_END,)
    whole = Image.open(io.BytesIO(data + b"\xff\xd9")).convert("RGB")
    assert open_upright(data).tobytes() == whole.tobytes()
    told: list[str] = []
    assert open_as_lavis(CUT, told.append).tobytes() == whole.tobytes()
    assert told == [NO_END]
    assert "all its pixels are there" in note_text(told[0])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("size", [(160, 120), (8, 8), (33, 17), (1500, 40)])
def test_every_kind_without_its_end_is_whole(way: str, missing: int, size: tuple[int, int]) -> None:
    data = jpeg(way, size)
    kept = prepare(data[:-missing])
    assert kept.notes == (NO_END,)
    assert open_upright(data[:-missing]).tobytes() == open_upright(data).tobytes()
    assert prepare(data).notes == ()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("percent", [1, 5, 50, 80])
def test_every_kind_that_lacks_pixels_is_refused(way: str, percent: int) -> None:
    data = jpeg(way)
    assert refused(data[: len(data) * (100 - percent) // 100])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("flat", [False, True])
def test_wherever_it_is_cut_it_is_whole_or_refused(way: str, flat: bool) -> None:
    """A flat picture says little, and what is made up for it may look as what was there."""
    data = jpeg(way, (48, 40), flat)
    wanted = open_upright(data).tobytes()
    taken = 0
    for end in range(1, len(data)):
        try:
            kept = open_upright(data[:end])
        except PictureError:
            continue
        assert kept.tobytes() == wanted, end
        taken += 1
    assert taken >= 2
    assert flat or taken < 8


def test_a_progressive_file_cut_between_two_scans_is_refused() -> None:
    data = jpeg("progressive")
    scans = [at for at in range(len(data)) if data.startswith(b"\xff\xda", at)]
    tables = [data.rfind(b"\xff\xc4", 0, at) for at in scans]
    assert len(scans) > 4
    for at in [*scans[1:], *[t for t in tables if t > scans[0]]]:
        assert refused(data[:at])
        assert not jpeg_end.lacks_end(data[:at])


def test_a_file_with_an_end_that_is_damaged_stays_refused() -> None:
    data = jpeg("baseline")
    assert refused(data[: len(data) // 2] + b"\xff\xd9"[:1])
    assert not jpeg_end.lacks_end(data)


@given(st.binary(max_size=300))
def test_any_bytes_have_an_end_or_none(tail: bytes) -> None:
    for data in (tail, b"\xff\xd8" + tail, jpeg("baseline", (8, 8))[:-2] + tail):
        assert jpeg_end.lacks_end(data) in (True, False)
