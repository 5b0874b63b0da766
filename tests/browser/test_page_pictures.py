"""Every road by which a picture comes in, and every bad one."""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from driver import TEXTAREA, Talk, picture, upload
from PIL import Image

from tests.heif_file import heic

DATA = Path(__file__).parents[1] / "data" / "pictures"
AVIF, CUT = ((DATA / name).read_bytes() for name in ("real.avif", "cut-eoi.jpg"))
ATTACHED = "#box .thumbnail-item, #box .thumbnails button"


def huge_png(width: int = 60_000, height: int = 60_000) -> bytes:
    """A few hundred bytes that claim 3.6 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")  # fmt: skip


def rotated_jpeg() -> bytes:
    """Stored 120 × 90, to be shown 90 × 120 (EXIF orientation 6)."""
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.open(io.BytesIO(picture())).save(out, "JPEG", exif=exif)
    return out.getvalue()


BAD = {
    "nothing": (b"", "a.png", "0 bytes"),
    "text": (b"hello, I am no picture at all", "a.png", "not a picture"),
    "truncated": (picture(size=(400, 300))[:900], "a.png", "cut off"),
    "bomb": (huge_png(), "a.png", "too many pixels"),
    "heic": (heic(kind=b"avc1"), "a.heic", "HEIC"),
}


def drop(
    talk: Talk, selector: str, files: list[tuple[bytes, str]], mime: str = "image/png"
) -> None:
    """Let files fall on an element."""
    given = [[base64.b64encode(data).decode(), name] for data, name in files]
    talk.page.evaluate(
        """([selector, files, type]) => {
          const transfer = new DataTransfer();
          for (const [data, name] of files) {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            transfer.items.add(new File([bytes], name, {type}));
          }
          const target = document.querySelector(selector);
          for (const kind of ['dragenter', 'dragover', 'drop'])
            target.dispatchEvent(new DragEvent(kind, {dataTransfer: transfer, bubbles: true, cancelable: true}));
        }""",
        [selector, given, mime],
    )


def paste(talk: Talk, selector: str, data: bytes) -> None:
    """Paste a picture into an element."""
    talk.page.evaluate(
        """([selector, data]) => {
          const transfer = new DataTransfer();
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          transfer.items.add(new File([bytes], 'pasted.png', {type: 'image/png'}));
          const target = document.querySelector(selector);
          target.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true, cancelable: true}));
        }""",
        [selector, base64.b64encode(data).decode()],
    )


def wait_current(talk: Talk) -> None:
    """Wait until the next question has a picture."""
    talk.page.wait_for_selector("#strip img", state="attached")


def size_shown(talk: Talk) -> list[int]:
    """Natural size of the picture in the picture box."""
    talk.page.wait_for_function(
        "document.querySelector('#picture .image-frame img')?.naturalWidth > 0"
    )
    size: list[int] = talk.page.evaluate(
        "(() => { const i = document.querySelector('#picture .image-frame img');"
        " return [i.naturalWidth, i.naturalHeight] })()"
    )
    return size


def test_dropped_anywhere(talk: Talk) -> None:
    drop(talk, "#log", [(picture(), "a.png")])
    wait_current(talk)
    assert size_shown(talk) == [120, 90]


def test_dropped_on_and_pasted_into_the_picture_box(talk: Talk) -> None:
    drop(talk, "#picture button.upload-container", [(picture(), "a.png")])
    wait_current(talk)
    before = talk.current_picture()
    paste(talk, "body", picture("#00ff00"))
    talk.page.wait_for_function(
        "before => document.querySelector('#strip img').getAttribute('src') !== before", arg=before
    )


def test_several_into_the_question_box(talk: Talk) -> None:
    paste(talk, TEXTAREA, picture(size=(50, 40)))
    talk.page.wait_for_selector(ATTACHED)
    talk.page.set_input_files("#box input[type=file]", [upload(picture(size=(70, 60)), "last.png")])
    talk.page.wait_for_function("document.querySelectorAll('#box .thumbnail-item').length === 2")
    talk.ask("which one?")
    assert "last.png" in talk.notice()
    assert "2 files" in talk.notice()
    assert size_shown(talk) == [70, 60]
    assert not talk.page.query_selector(ATTACHED)


def test_picture_without_a_question(talk: Talk) -> None:
    talk.page.set_input_files("#box input[type=file]", [upload(picture())])
    talk.page.wait_for_selector(ATTACHED)
    talk.page.press(TEXTAREA, "Enter")
    # On a slow machine Enter comes before the upload has ended, and is made good after it.
    talk.page.wait_for_function(
        "document.querySelector('.notice')?.innerText.includes('picture is in place')"
    )
    assert size_shown(talk) == [120, 90]


def test_camera(talk: Talk) -> None:
    talk.page.click("#picture [data-testid=source-select] button >> nth=1")
    talk.page.click("#picture [title='grant webcam access'] button")
    capture = talk.page.locator("#picture .button-wrap button")
    capture.first.wait_for()
    talk.page.wait_for_timeout(800)
    capture.first.click()
    wait_current(talk)
    assert size_shown(talk)[0] > 100
    # Gradio asks for the progress of an upload that it has not begun, twice, when the camera opens.
    talk.problems[:] = [
        p for p in talk.problems if "upload_progress" not in p and "Response" not in p
    ]


def test_new_scene_with_fitting_questions(talk: Talk) -> None:
    talk.page.click("#scene")
    wait_current(talk)
    assert size_shown(talk) == [224, 224]
    before = talk.current_picture()
    offers = talk.page.locator(".offers .chip")
    assert 2 <= offers.count() <= 4
    words = offers.first.inner_text()
    offers.first.click()
    assert talk.text() == words
    talk.page.click("#scene")
    talk.page.wait_for_function(
        "before => document.querySelector('#strip img').getAttribute('src') !== before", arg=before
    )
    assert talk.ask("what?") == "Turn 1: what?"


def test_phone_photo_is_turned_upright(talk: Talk) -> None:
    talk.give(rotated_jpeg(), "photo.jpg", "image/jpeg")
    assert size_shown(talk) == [90, 120]


@pytest.mark.parametrize("name", ["IMG_0001.HEIC", "a.avif"])
def test_telephones_and_browsers_pictures_of_which_the_desktop_knows_no_type(
    name: str, talk: Talk
) -> None:
    data, size = (heic(turn=1), [48, 64]) if name.endswith("HEIC") else (AVIF, [224, 224])
    for kind in ("", "application/octet-stream"):
        drop(talk, "#picture button.upload-container", [(data, name)], kind)
        wait_current(talk)
        assert size_shown(talk) == size
        talk.page.click("#picture button[aria-label='Remove the picture']")
        talk.page.wait_for_selector("#strip img", state="detached")
        with talk.page.expect_file_chooser() as chooser:
            talk.page.click("#picture button.upload-container")
        assert ".heic" in talk.page.get_attribute("#picture input[type=file]", "accept")
        chooser.value.set_files({"name": name, "mimeType": kind, "buffer": data})
        wait_current(talk)
        assert size_shown(talk) == size
        talk.page.click("#picture button[aria-label='Remove the picture']")
        talk.page.wait_for_selector("#strip img", state="detached")
    talk.page.set_input_files("#box input[type=file]", upload(data, name, ""))
    talk.page.wait_for_selector(ATTACHED)
    assert talk.ask("what?") == "Turn 1: what?"
    assert size_shown(talk) == size


@pytest.mark.parametrize(
    ("locale", "words"), [("en-US", "lacks its end"), ("zh-CN", "文件缺了结尾")]
)
def test_a_jpeg_that_lacks_its_end_is_taken_with_a_note(
    locale: str, words: str, tabs: Callable[..., Talk]
) -> None:
    talk = tabs(locale=locale).open("?chat=new")
    talk.give(CUT, "photo.jpg", "image/jpeg")
    assert words in talk.notice()
    assert size_shown(talk) == [224, 224]
    talk.give(picture())
    talk.page.wait_for_selector(".notice", state="detached")
    talk.page.set_input_files("#box input[type=file]", upload(CUT, "photo.jpg", "image/jpeg"))
    talk.page.wait_for_selector(ATTACHED)
    talk.ask("what?")
    assert words in talk.notice()


@pytest.mark.parametrize("language", ["en", "zh"])
def test_bad_pictures_are_explained(language: str, tabs: Callable[..., Talk]) -> None:
    talk = tabs(locale="zh-CN" if language == "zh" else "en-US").open("?chat=new")
    talk.give(picture())
    good = talk.current_picture()
    talk.write("my question")
    told: set[str] = set()
    for data, name, words in BAD.values():
        talk.page.evaluate("document.querySelector('.notice')?.remove()")
        talk.page.set_input_files("#picture input[type=file]", upload(data, name, "image/png"))
        notice = talk.notice()
        assert language == "zh" or words in notice, notice
        assert bool(re.search("[一-鿿]", notice)) is (language == "zh")
        told.add(notice)
        assert talk.current_picture() == good
    assert len(told) == len(BAD)
    assert talk.text() == "my question"
    talk.page.press(TEXTAREA, "Enter")
    talk.page.wait_for_selector(".turns .turn")
    assert talk.answers() == ["Turn 1: my question"]


def test_bad_picture_in_the_question_box(talk: Talk) -> None:
    talk.page.set_input_files("#box input[type=file]", upload(b"no picture", "a.png"))
    talk.page.wait_for_selector(ATTACHED)
    talk.send("what is it?")
    # On a slow machine the upload is still on its way, and the page says so first.
    talk.page.wait_for_selector(".notice:has-text('not a picture')")
    assert talk.text() == "what is it?"


def test_wrong_kind_of_file_in_chinese(tabs: Callable[..., Talk]) -> None:
    talk = tabs(locale="zh-CN").open("?chat=new")
    for box in ("#picture", "#box"):
        talk.page.set_input_files(
            f"{box} input[type=file]", upload(b"words", "notes.txt", "text/plain")
        )
        talk.page.wait_for_selector(".toast-wrap :text('“notes.txt”不是图片')")
        talk.page.wait_for_selector(".toast-wrap :text('出错了')")
        talk.page.locator(".toast-wrap button").first.click()
        talk.page.wait_for_selector("[data-testid=toast-body]", state="detached")


def test_refresh_layout_says_that_it_shows_one_picture(talk: Talk) -> None:
    talk.menu()
    talk.page.click("#settings button")
    talk.page.click("#set-layout input")
    talk.page.click("#set-layout [role=option]:has-text('refresh')")
    talk.give(picture())
    talk.ask("one")
    assert not talk.page.query_selector(".notice")
    talk.give(picture("#0000aa"))
    talk.ask("two")
    assert "only the newest picture" in talk.notice()
