"""Paths as people write them, and as their terminals do."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructblip.errors import PictureError
from instructblip.paths import as_file, dropped_file

NAMES = ["b c.png", "it's.png", "猫.png", "d%20e.png", 'q"q.png', "semi;colon$.png", " spaced.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_every_way_to_write_a_path(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder))
    whole = f"{folder}/{name}"
    escaped = "".join(c if c.isalnum() or c in "/._-" else f"\\{c}" for c in whole)
    ways = [
        whole, f"{whole} ", escaped, f"{escaped} ", shlex.quote(whole), f"{shlex.quote(whole)} ",
        f"& {shlex.quote(whole)}", Path(whole).as_uri(), f'"{Path(whole).as_uri()}"', f"~/{name}",
        Path(whole).as_uri().replace("file:///", "file://localhost/"),
    ]  # fmt: skip
    ways += [f'"{whole}"', f'"~/{name}"'] if '"' not in name else []
    for way in ways:
        assert as_file(way) == Path(whole), way
    assert as_file(name, folder) == Path(whole)


def test_the_words_themselves_come_first(folder: Path) -> None:
    for name in ("'b c.png'", "d e.png", r"b\ c.png"):
        (folder / name).touch()
        assert as_file(name, folder) == folder / name
    assert as_file("d%20e.png", folder) == folder / "d%20e.png"
    assert as_file("no such", folder) == folder / "no such"


def test_a_path_in_the_encoding_of_a_terminal(folder: Path) -> None:
    (folder / "这张图.png").touch()
    assert as_file(os.fsdecode("这张图.png".encode("gbk")), folder) == folder / "这张图.png"


@pytest.mark.parametrize(
    "words", ["http://x.example/a.png", ' "https://x/a" ', "ftp://x/y", "s3://b/k", "data:image/png;base64,AA"]
)  # fmt: skip
def test_addresses_are_refused(words: str) -> None:
    with pytest.raises(PictureError, match="nothing is fetched from the network"):
        as_file(words)


def test_a_line_that_is_a_dropped_file(folder: Path) -> None:
    assert dropped_file(f"'{folder}/b c.png' ") == folder / "b c.png"
    for line in (
        "b c.png",
        f"{folder}",
        f"what is in {folder}/b c.png",
        "/new",
        "'what' is it",
        "",
    ):
        assert dropped_file(line) is None, line


@given(st.text(max_size=30))
def test_any_words_name_a_path_or_an_address(words: str) -> None:
    code = ""
    try:
        as_file(words, "/nowhere")
    except PictureError as error:
        code = error.code
    assert code in ("", "picture_address")
