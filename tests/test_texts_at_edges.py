"""A text is the same text at every edge: page, titles, terminal, flags, lists; refused in the same words."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from instructblip import cli
from instructblip.errors import BadRequest
from instructblip.rows import BadRow, read_rows
from instructblip.texts import MAX_TEXT
from instructblip.typed import Lines
from tests.tiny_picture import picture
from webui.asgi.bodies import read_event
from webui.store import Store

Edge = Callable[[Path, str], str]


def body(data: list[object], event: object = None) -> dict[str, object]:
    whole = {"session_hash": "abc123", "fn_index": 1, "data": data, "event_data": event}
    return read_event(json.dumps(whole).encode(), lambda path: False)[0]


def question_of_the_page(folder: Path, text: str) -> str:
    return body([{"text": text, "files": []}])["data"][0]["text"]  # type: ignore[index]


def edited_on_the_page(folder: Path, text: str) -> str:
    return body([], {"act": "edit", "text": text})["event_data"]["text"]  # type: ignore[index]


def stop_string_of_the_page(folder: Path, text: str) -> str:
    return body([0.5, text])["data"][1]  # type: ignore[index]


def line_of_chat(folder: Path, text: str) -> str:
    """A text of several lines cannot be typed; the whole of it is one here."""
    told: list[str] = []
    line = Lines(Whole(text), None, told.append).readline()
    assert line is not None
    return line


class Whole(io.StringIO):
    """A stream whose one line is all of it."""

    def readline(self, size: int = -1, /) -> str:
        return self.read()


def prompt_of_infer(folder: Path, text: str) -> str:
    (row,) = read_rows([str(folder / "a.png")], text)
    assert not isinstance(row, BadRow)
    return row.prompt


def cell_of_a_list(folder: Path, text: str) -> str:
    quoted = text.replace('"', '""').encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    (folder / "x.csv").write_bytes(f'img_path,prompt\n"a.png","{quoted}"\n'.encode())
    return of_list(folder / "x.csv")


def line_of_a_list(folder: Path, text: str) -> str:
    (folder / "x.jsonl").write_text(json.dumps({"img_path": "a.png", "prompt": text}))
    return of_list(folder / "x.jsonl")


def of_list(path: Path) -> str:
    (row,) = read_rows([str(path)], None)
    if isinstance(row, BadRow):
        raise BadRequest(row.reason)
    return row.prompt


EDGES: dict[str, Edge] = {
    each.__name__: each
    for each in (
        question_of_the_page, edited_on_the_page, stop_string_of_the_page, line_of_chat,
        prompt_of_infer, cell_of_a_list, line_of_a_list,
    )
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(picture())
    return tmp_path


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("What is it?", "What is it?"),
        ("\ufeff图里有什么？", "图里有什么？"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("wh\0at\x07 \x1b[1mis\x1b[0m\tit", "what is\tit"),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
    ],
)
def test_a_text_is_kept_the_same(folder: Path, edge: str, text: str, kept: str) -> None:
    assert EDGES[edge](folder, text) == kept


@pytest.mark.parametrize("edge", sorted(set(EDGES) - {"cell_of_a_list"}))
def test_half_a_letter_is_a_question_mark(folder: Path, edge: str) -> None:
    """CSV cannot spell one: there it is bytes that are no UTF-8."""
    assert EDGES[edge](folder, "cut \ud83d") == "cut ?"


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("more", [1, 100_000])
def test_a_text_too_long_is_refused_in_the_same_words(folder: Path, edge: str, more: int) -> None:
    with pytest.raises(BadRequest) as caught:
        EDGES[edge](folder, "x" * (MAX_TEXT + more))
    assert str(caught.value) == "A text has more than 100000 characters. Make it shorter."


def test_bytes_that_are_no_text_are_refused_in_the_same_words(folder: Path) -> None:
    data, told = b"what \xff\xfe is", []

    def listed() -> str:
        (folder / "x.csv").write_bytes(b"img_path,prompt\na.png," + data + b"\n")
        return of_list(folder / "x.csv")

    def typed() -> str | None:
        return Lines(io.TextIOWrapper(io.BytesIO(data + b"\n")), None, told.append).readline()

    words = []
    for edge in (lambda: prompt_of_infer(folder, os.fsdecode(data)), typed, listed):
        with pytest.raises(BadRequest) as caught:
            edge()
        words.append(str(caught.value))
    assert words[0].startswith("The text is not UTF-8 (byte 0xff at place 6)")
    assert len(set(words)) == 1
    assert told == []


@pytest.mark.parametrize("sent", ["图里有什么？".encode("gbk"), "Welche Größe?".encode("cp1252")])
def test_bytes_of_another_encoding_are_the_same_text(folder: Path, sent: bytes) -> None:
    (folder / "x.csv").write_bytes(b"img_path,prompt\na.png," + sent + b"\n")
    typed = Lines(io.TextIOWrapper(io.BytesIO(sent + b"\n")), None, lambda _: None).readline()
    assert of_list(folder / "x.csv") == typed == prompt_of_infer(folder, os.fsdecode(sent))


def test_a_title_is_the_same_text_on_one_line(tmp_path: Path) -> None:
    sent = "\ufeff one\r\n tw\0o\u2028\x1b[1mthree\ud83d "
    renamed = body([], {"act": "rename", "text": sent})["event_data"]["text"]  # type: ignore[index]
    store = Store(tmp_path)
    try:
        chat = store.new_chat("a-1")
        store.rename_chat("a-1", chat.id, renamed)
        assert store.chat("a-1", chat.id).title == "one two three?"
    finally:
        store.close()


def test_the_command_line_tells_it_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["infer", "--model", "no/such/folder", "--img_path", str(folder / "a.png"), "--prompt"]
    assert cli.main([*call, "x" * (MAX_TEXT + 1)]) == 2
    error = capsys.readouterr().err
    assert error == "error: A text has more than 100000 characters. Make it shorter.\n"
    assert cli.main([*call, "\0\x1b"]) == 2
    assert "--prompt is empty" in capsys.readouterr().err
