"""``chat`` with other people's terminals: encodings, dropped files, odd lines. The chat always goes on."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from instructblip.cli import main
from instructblip.engine.base import SamplingParams
from instructblip.terminal import TerminalChat
from instructblip.texts import MAX_TEXT
from tests.tiny import picture

# A question as a Chinese Windows terminal sends it.
GBK_LINE = bytes.fromhex("cdbcc0efd3d0cab2c3b4a3bf0a")
QUESTION = "图里有什么？"

Talk = Callable[..., tuple[str, list[str]]]


@pytest.fixture
def talk(new_engine, tmp_path: Path) -> Talk:
    """Sends lines, as bytes to a stream of an encoding; the output and the questions asked."""
    (tmp_path / "it's a b.png").write_bytes(picture())

    def send(
        *lines: bytes, encoding: str = "utf-8", named: str | None = None
    ) -> tuple[str, list[str]]:
        out = io.StringIO()
        chat = TerminalChat(new_engine(), SamplingParams(max_new_tokens=3), None, out, named)
        chat.take_file(str(tmp_path / "it's a b.png"))
        stream = io.TextIOWrapper(io.BytesIO(b"".join(lines)), encoding=encoding)
        assert chat.run(stream) == 0
        return out.getvalue(), [turn.question for turn in chat.conversation.path()]

    return send


# --- lines ----------------------------------------------------------------------------------------


def test_a_line_of_a_chinese_terminal_is_read_and_told_once(talk: Talk) -> None:
    text, asked = talk(GBK_LINE, GBK_LINE, b"what is it\n")
    assert asked == [QUESTION, QUESTION, "what is it"]
    assert text.count("was read as GB18030") == 1
    assert "--encoding gb18030" in text


@pytest.mark.parametrize(
    ("words", "sent", "encoding", "named"),
    [
        (QUESTION, "gbk", "gbk", None),
        ("猫", "gbk", "gbk", None),  # two bytes that are a Latin letter in UTF-8
        (QUESTION, "utf-8", "gbk", None),
        (QUESTION, "gb18030", "ascii", None),
        (QUESTION, "utf-8", "ascii", None),
        ("圖裡有什麼東西呢", "big5", "utf-8", None),
        ("Welche Farbe hat die Tür?", "cp1252", "utf-8", None),
        ("何が写っていますか", "shift_jis", "cp932", None),
        ("何が写っていますか", "shift_jis", "utf-8", "shift_jis"),
        ("猫", "gbk", "utf-8", "gbk"),
        (QUESTION, "utf-16", "utf-8", None),
        (QUESTION, "utf-16-be", "utf-8", "utf-16-be"),
    ],
)
def test_terminals_of_other_encodings(
    talk: Talk, words: str, sent: str, encoding: str, named: str | None
) -> None:
    _, asked = talk(f"{words}\r\nwhat\r\n".encode(sent), encoding=encoding, named=named)
    assert asked == [words, "what"]


@pytest.mark.parametrize(
    "line", [b"\xff", b"\xff\xfe\xfa what", b"what \x80\x81", b"\xe5\x9b is it"]
)
def test_a_line_that_cannot_be_read_is_told_and_the_chat_goes_on(talk: Talk, line: bytes) -> None:
    text, asked = talk(b"what\n", line + b"\n", b"how many dogs\n")
    assert asked == ["what", "how many dogs"]
    for words in (
        "not UTF-8",
        f"byte 0x{line[0]:02x}"[:5],
        "--encoding gb18030",
        "PYTHONIOENCODING",
    ):
        assert words in text


def test_a_line_that_is_not_what_was_named(talk: Talk) -> None:
    text, asked = talk(b"\xff\xff\n", b"what\n", named="gb18030")
    assert asked == ["what"]
    assert "not GB18030" in text


def test_odd_lines(talk: Talk) -> None:
    text, asked = talk(
        b"\xef\xbb\xbfwhat\n", b"wh\x00at\x1b[200~ is\x07 it\x1b[201~\r\n", b"\x00\x1b\n", b"\n",
        b"x" * (MAX_TEXT + 1) + b"\n", b"last",
    )  # fmt: skip
    assert asked == ["what", "what is it", "last"]
    assert f"A text has more than {MAX_TEXT} characters" in text


@pytest.mark.parametrize(
    ("encoding", "errors"), [("utf-8", "strict"), ("utf-8", "surrogateescape"), ("ascii", "strict")]
)
def test_a_chinese_line_on_the_command_line(
    encoding: str,
    errors: str,
    asked_about: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(GBK_LINE + b"what\n"), encoding=encoding, errors=errors)
    monkeypatch.setattr("sys.stdin", stream)
    assert main(["chat", "--model", str(tiny_folder), "--img_path", str(asked_about)]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("\n> ") == 3
    assert "was read as GB18030" in printed.out
    assert printed.err == ""


def test_answers_are_written_in_the_encoding_that_is_named(
    asked_about: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding="utf-8"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GBK_LINE + b"/undo\n")))
    call = ["chat", "--model", str(tiny_folder), "--img_path", str(asked_about)]
    assert main([*call, "--encoding", "gbk"]) == 0
    sys.stdout.flush()
    assert b"Taken back: " + GBK_LINE in out.getvalue()
    assert main([*call, "--encoding", "base64"]) == 2


@pytest.fixture
def asked_about(tmp_path: Path) -> Path:
    (tmp_path / "p.png").write_bytes(picture())
    return tmp_path / "p.png"


def test_a_prompt_with_bytes_that_are_no_utf_8(
    asked_about: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["infer", "--model", str(tiny_folder), "--json", "--img_path", str(asked_about)]
    assert main([*call, "--prompt", os.fsdecode(GBK_LINE.strip())]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] == QUESTION
    assert main([*call, "--prompt", os.fsdecode(b"what \xff is it")]) == 2
    assert "not UTF-8 (byte 0xff at place 6)" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_an_answer_that_the_terminal_cannot_show(
    encoding: str, asked_about: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr("instructblip.infer.EngineAnswers.ask", lambda *_: "é 猫 😀")
    call = ["infer", "--img_path", str(asked_about), str(asked_about), "--prompt", "what"]
    assert main(call) == 0
    assert main([*call, "--json"]) == 0
    sys.stdout.flush()
    plain, _, *objects = out.getvalue().decode(encoding).splitlines()
    assert "\\U0001f600" in plain
    assert [json.loads(each)["answer"] for each in objects] == ["é 猫 😀"] * 2


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        '/picture "{folder}/it\'s a b.png"',
        "/picture '{folder}/it'\\''s a b.png'",
        "/picture {folder}/it\\'s\\ a\\ b.png ",
        "/picture {folder}/it's a b.png",
        "/picture\t {folder}/it's a b.png \t",
        "/picture file://{folder}/it's%20a%20b.png",
        '/picture "file://{folder}/it%27s a b.png"',
        "/picture ~/it's a b.png",
        '/picture "~/it\'s a b.png" ',
        "/picture “{folder}/it's a b.png”",
        "/picture & '{folder}/it'\\''s a b.png'",
        "'{folder}/it'\\''s a b.png' ",
        "{folder}/it\\'s\\ a\\ b.png ",
        "file://{folder}/it's%20a%20b.png",
    ],
)
def test_a_picture_however_it_is_named_or_dropped(
    written: str, new_engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "it's a b.png").write_bytes(picture())
    out = io.StringIO()
    chat = TerminalChat(new_engine(), SamplingParams(max_new_tokens=3), None, out)
    assert chat.run(io.StringIO(written.format(folder=tmp_path) + "\nwhat\n")) == 0
    assert len(chat.conversation.path()) == 1, out.getvalue()
    assert "Cannot" not in out.getvalue()


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ('/picture "no such.png"', '"no such.png": No such file'),
        ("/picture", "No picture is named"),
        ('/picture "never closed', "never closed: No such file"),
        ("/picture https://x.example/a.png", "nothing is fetched from the network"),
        ("/picture .", "directory"),
        ("/picture " + "x" * 5000, "File name too long"),
        ("/picture ~nobody-of-that-name/a.png", "No such file"),
        ("/nonsense", "/quit ends"),
    ],
)
def test_a_picture_that_is_not_there_is_told_and_the_chat_goes_on(
    talk: Talk, written: str, words: str
) -> None:
    text, asked = talk(f"{written}\nwhat\n".encode())
    assert asked == ["what"]
    assert words in text


# --- warnings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["infer", "chat"])
def test_no_warning_of_a_library_is_shown(
    command: str, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow warns of a palette whose transparency is given as bytes."""
    palette = Image.new("P", (40, 40))
    palette.putpalette([number % 256 for number in range(768)])
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 128, 255]))
    call = [command, "--model", str(tiny_folder), "--img_path", str(tmp_path / "palette.png")]
    monkeypatch.setattr("sys.stdin", io.StringIO("what\n"))
    monkeypatch.setattr("sys.warnoptions", [])
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert main(call + (["--prompt", "what"] if command == "infer" else [])) == 0
    assert [str(each.message) for each in shown] == []
