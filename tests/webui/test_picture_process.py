"""The process that reads one picture: its limits, its end, and how little it is trusted."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from hostile_pictures import flat_png, many_scans
from PIL import Image

from instructblip.errors import PictureError
from instructblip.images import NO_END
from tests.heif_file import heic
from tests.tiny_picture import picture
from webui import picture_process
from webui.picture_process import LOW, NotBegun, PictureProcess
from webui.picture_reader import BEGAN, Limits, read_frame, write_frame

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the server watches")
DATA = Path(__file__).parents[1] / "data" / "pictures"
SIDE = 8000  # 64 megapixels


def encoded(mode: str, kind: str, size: int = 60, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new(mode, (size, size)).save(out, kind, **options)
    return out.getvalue()


def outcome(data: bytes, limits: Limits | None = None) -> str:
    """The format of what was read, or the error's code."""
    process = PictureProcess(limits or Limits())
    try:
        return process.read(data).format
    except PictureError as error:
        return error.code if len(str(error)) > 20 else "no words"
    finally:
        process.close()


def test_a_picture_comes_back_as_it_is_kept() -> None:
    process = PictureProcess(Limits())
    kept = process.read(encoded("RGB", "PNG"))
    assert (kept.width, kept.height, kept.mime, kept.format) == (60, 60, "image/png", "PNG")
    assert Image.open(io.BytesIO(kept.data)).size == (60, 60)
    process.close()


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGBA", "PNG", {"compress_level": 1}),
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
        ("RGBA", "WEBP", {"quality": 1, "method": 0}),
        ("P", "GIF", {}),
        ("1", "BMP", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGBA", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("RGB", "AVIF", {"speed": 10}),
    ],
)
def test_a_sound_picture_of_64_megapixels_passes(mode: str, kind: str, options: dict) -> None:
    assert outcome(encoded(mode, kind, SIDE, **options)) == kind


def test_heic_and_avif_are_read_there() -> None:
    assert outcome(heic(turn=1)) == "HEIF"
    assert outcome((DATA / "iphone.heic").read_bytes()) == "HEIF"
    assert outcome((DATA / "avif-mif1.avif").read_bytes()) == "AVIF"
    assert outcome(heic(kind=b"avc1")) == "picture_heic"
    assert outcome(heic()[:-50]) == "picture_truncated"


def test_what_its_user_should_know_comes_back() -> None:
    cut = (DATA / "cut-eoi.jpg").read_bytes()
    for data, notes in ((cut, (NO_END,)), (encoded("L", "PNG"), ())):
        process = PictureProcess(Limits())
        assert process.read(data).notes == notes
        process.close()


def test_only_known_notes_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"width": 1, "height": 1, "mime": "image/png", "format": "PNG"}
    header = json.dumps(said | {"notes": [NO_END, "gone", "<script>"]}).encode()
    monkeypatch.setattr(picture_process, "read_frame", lambda pipe, at_most: header)
    process = PictureProcess(Limits())
    try:
        assert process.read(picture()).notes == (NO_END,)
    finally:
        process.close()


def test_what_is_no_picture_is_said_by_the_process() -> None:
    assert outcome(b"") == "picture_empty"
    assert outcome(b"no picture") == "picture_unreadable"
    assert outcome(encoded("RGB", "PNG")[:60]) == "picture_truncated"
    assert outcome(flat_png(1, 40_000)) == "picture_long"
    assert outcome(flat_png(9000, 9000)) == "picture_bomb"
    assert outcome(b"x" * 101, Limits(file=100)) == "picture_too_large"


@ON_LINUX
def test_a_picture_that_takes_too_long_ends_its_process() -> None:
    assert outcome(many_scans(2000, 5000), Limits(cpu=1)) == "picture_too_slow"


@ON_LINUX
@pytest.mark.parametrize("kind", ["PNG", "GIF", "JPEG"])
def test_a_picture_that_takes_too_much_memory_is_refused(kind: str) -> None:
    assert outcome(encoded("RGB", kind, 6000), Limits(memory=150_000_000)) == "picture_too_hungry"


@ON_LINUX
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_heic_and_avif_have_the_same_limits(kind: str) -> None:
    heif = kind == "HEIF"
    data = (DATA / "iphone.heic").read_bytes() if heif else encoded("RGB", kind, 3500, speed=10)
    # Their decoders tell a lack of memory as a damaged picture, if they tell it.
    assert outcome(data, Limits(memory=80_000_000)) in ("picture_too_hungry", "picture_truncated")
    assert outcome(data, Limits(file=100)) == "picture_too_large"


def test_one_that_is_killed_says_so() -> None:
    process = PictureProcess(Limits())
    threading.Timer(0.5, process._process.kill).start()
    with pytest.raises(PictureError) as caught:
        process.read(many_scans(2000, 20_000))
    assert caught.value.code == "picture_crashed"
    assert "SIGKILL" in str(caught.value) or os.name == "nt"
    process.close()


def test_one_that_was_killed_before_is_not_the_pictures_fault() -> None:
    process = PictureProcess(Limits())
    process.kill()
    with pytest.raises(NotBegun):
        process.read(encoded("RGB", "PNG"))
    process.close()


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_when_the_server_is_gone(busy: bool) -> None:
    process = PictureProcess(Limits())
    if busy:
        write_frame(process._into, many_scans(4000, 5000))
        assert read_frame(process._out, 100) == BEGAN
    process._into.close()
    assert process._process.wait(30) == 0
    process.close()


def test_it_imports_nothing_heavy_and_knows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTBLIP_AUTH", "ann:secret")
    process = PictureProcess(Limits())
    environment = Path(f"/proc/{process._process.pid}/environ")
    if environment.exists():
        end = time.monotonic() + 30
        while not environment.read_bytes() and time.monotonic() < end:
            time.sleep(0.01)
        assert b"secret" not in environment.read_bytes()
    process.close()
    code = "import sys, webui.picture_reader; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert "PIL.Image" in loaded
    heavy = {"torch", "numpy", "gradio", "fastapi", "sqlite3", "psutil"}
    assert not (heavy | {"pi_heif", "PIL.AvifImagePlugin"}) & set(loaded.split())


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense",
        b"[]",
        b"{}",
        json.dumps({"width": 10**9, "height": 1, "mime": "image/png", "format": "PNG"}).encode(),
        json.dumps({"width": 1, "height": 1, "mime": "text/html", "format": "PNG"}).encode(),
        json.dumps(
            {"width": 1, "height": 1, "mime": "image/png", "format": "PNG", "notes": 5}
        ).encode(),
        json.dumps({"code": "login_wrong", "message": "Log in again", "values": {}}).encode(),
    ],
)
def test_a_process_that_a_picture_took_over_is_not_believed(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [BEGAN, said, b"x"]
    script = "import sys; from webui.picture_reader import *; read_frame(sys.stdin.buffer, 1000)\n"
    script += f"for frame in {frames!r}: write_frame(sys.stdout.buffer, frame)\nsys.stdin.read()"
    real = subprocess.Popen

    def lying(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        return real([command[0], "-c", script], **options)

    monkeypatch.setattr(picture_process.subprocess, "Popen", lying)
    assert outcome(b"a picture") == "picture_crashed"


def test_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (encoded("RGB", "PNG"), b"no picture"):
        outcome(data)
    assert not [c for c in psutil.Process().children() if "webui.picture_reader" in c.cmdline()]


@pytest.mark.skipif(not hasattr(signal, "SIGSEGV"), reason="no signals there")
def test_a_crash_is_told_by_its_name() -> None:
    process = PictureProcess(Limits())
    threading.Timer(0.5, process._process.send_signal, (signal.SIGSEGV,)).start()
    with pytest.raises(PictureError, match="SIGSEGV"):
        process.read(many_scans(2000, 20_000))
    process.close()


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="no such priorities here")
def test_one_that_has_taken_long_lets_everything_else_go_first() -> None:
    process = PictureProcess(Limits())
    try:
        process.lower()
        assert os.getpriority(os.PRIO_PROCESS, process._process.pid) >= LOW
        assert process.read(picture()).width
    finally:
        process.close()
