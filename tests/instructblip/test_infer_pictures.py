"""``infer`` and ``chat`` with the pictures that users have: found in folders, read, and told about."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from instructblip.cli import main
from instructblip.engine.base import SamplingParams
from instructblip.images import SUFFIXES
from instructblip.rows import Row, read_rows
from instructblip.terminal import TerminalChat
from tests.exif_bytes import exif
from tests.heif_file import heic
from tests.png_file import png
from tests.tiny import make_checkpoint

DATA = Path(__file__).parents[1] / "data" / "pictures"
KINDS = {"heic": heic(turn=1), "heif": heic(), "hif": heic(brand=b"heix")}


@pytest.fixture
def infer(tiny_folder: Path) -> Callable[..., int]:
    """``infer`` on the tiny model, by the engine's generation."""
    call = ["infer", "--model", str(tiny_folder), "--prompt", "what is it", "--img_path"]
    return lambda *flags: main([*call, *map(str, flags)])


def jpeg(**options: object) -> bytes:
    out = io.BytesIO()
    kind = "MPO" if options.pop("several", False) else "JPEG"
    Image.new("RGB", (40, 30), "red").save(out, kind, **options)
    return out.getvalue()


def test_a_folder_gives_pictures_of_every_name(
    tmp_path: Path, infer: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    several = {"several": True, "save_all": True, "append_images": [Image.new("RGB", (40, 30))]}
    files = KINDS | {
        "avif": (DATA / "real.avif").read_bytes(), "jpe": jpeg(), "mpo": jpeg(**several),
        "JPG": jpeg(), "png": png([[[1, 2, 3]]], 2, 8),
    }  # fmt: skip
    for ending, data in files.items():
        (tmp_path / f"p.{ending}").write_bytes(data)
    (tmp_path / "notes.txt").write_text("x")
    assert infer(tmp_path, "--json") == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert sorted(Path(row["img_path"]).suffix[1:] for row in rows) == sorted(files)
    assert all(row["answer"] for row in rows)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_found_in_a_folder(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"x")
    (tmp_path / f"B{suffix.upper()}").write_bytes(b"x")
    rows = read_rows([str(tmp_path)], "what")
    assert [Path(row.img_path).name for row in rows if isinstance(row, Row)] == [
        f"B{suffix.upper()}", f"a{suffix}",
    ]  # fmt: skip


def alpha() -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("cut.jpg", (DATA / "cut-eoi.jpg").read_bytes(), "lacks its end"),
        ("p3.jpg", (DATA / "icc-P3.jpg").read_bytes(), "colours are taken for sRGB"),
        ("deep.png", (DATA / "png16-grey-trns.png").read_bytes(), "more than 8 bits"),
        ("deep2.png", png([[[5000], [60000]]], 0, 16), "more than 8 bits"),
        ("turned.jpg", jpeg(exif=b"Exif\0\0" + exif(6)), "orientation is ignored"),
        ("clear.png", alpha(), "transparency is dropped"),
    ],
    ids=["cut", "p3", "deep", "deep, no key", "turned", "clear"],
)
@pytest.mark.parametrize("way", ["--lavis", "--no-lavis"])
def test_what_differs_from_the_page_is_told_once(
    name: str, data: bytes, words: str, way: str, tmp_path: Path, infer: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / name).write_bytes(data)
    assert infer(tmp_path / name, way) == 0
    printed = capsys.readouterr()
    notes = [line for line in printed.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert f"{tmp_path / name}: " in notes[0]
    assert words in notes[0]
    assert "note" not in printed.out


@pytest.mark.parametrize(
    "data",
    [jpeg(), jpeg(exif=b"Exif\0\0" + exif(1)), heic(turn=1), png([[[1, 2, 3, 255]]], 6, 8),
     png([[[5], [250]]], 0, 8)],
    ids=["jpeg", "upright", "heic", "opaque", "grey"],
)  # fmt: skip
def test_nothing_is_told_of_plain_pictures(
    data: bytes, tmp_path: Path, infer: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").write_bytes(data)
    assert infer(tmp_path / "p") == 0
    assert capsys.readouterr().err == ""


def test_official_weights_see_what_pillow_alone_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """LAVIS converts no colours and no depths; neither does ``infer``, and it says so."""
    from instructblip.model import InstructBlip

    seen: list[bytes] = []
    generate = InstructBlip.generate

    def watched(
        self: InstructBlip, images: list[Image.Image], *args: object, **kw: object
    ) -> object:
        seen.append(images[0].tobytes())
        return generate(self, images, *args, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(InstructBlip, "generate", watched)
    folder = make_checkpoint(tmp_path / "official")
    for name in ("icc-P3.jpg", "png16-grey-trns.png", "srational-neg1-0.jpg"):
        path = DATA / name
        call = ["infer", "--model", str(folder), "--prompt", "what", "--num_beams", "1"]
        assert main([*call, "--max_length", "4", "--img_path", str(path)]) == 0
        assert seen.pop() == Image.open(path).convert("RGB").tobytes()
    assert capsys.readouterr().err.count("note: ") == 3


# --- chat ------------------------------------------------------------------------------------------


def test_chat_goes_on_whatever_the_picture_is(
    new_engine: Callable[..., object], tmp_path: Path
) -> None:
    for name in ("srational-neg1-0.jpg", "fuzz-18.jpg", "cut-eoi.jpg", "avif-mif1.avif"):
        shutil.copy(DATA / name, tmp_path / name)
    (tmp_path / "a.heic").write_bytes(heic())
    (tmp_path / "bad.heic").write_bytes(heic()[:200])
    names = [path.name for path in sorted(tmp_path.iterdir())]
    out = io.StringIO()
    chat = TerminalChat(new_engine(), SamplingParams(max_new_tokens=3), None, out)  # type: ignore[arg-type]
    talk = "".join(f"/picture {tmp_path / name}\nwhat is it\n" for name in names)
    assert chat.run(io.StringIO(f"{talk}/picture a\0b\n/quit\n")) == 0
    said = out.getvalue()
    assert said.count("> ") == 2 * len(names) + 2
    assert said.count("damaged or cut short") == 1
    assert said.count("lacks its end") == 1
    assert len(chat.conversation.path()) == len(names)
