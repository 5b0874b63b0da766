"""The public set: how it is read, and what counts as right."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from instructblip import cli
from instructblip.easy_vqa import form_of, read_questions, said
from instructblip.errors import InstructBlipError


@pytest.mark.parametrize(
    ("answer", "word"),
    [("Yes.", "yes"), ("No, there is none.", "no"), ("A red circle.", ""), ("A square.", "rectangle"),
     ("Circle.", "circle"), ("Grey.", "gray"), ("Red.", "red"), ("I do not know.", ""), ("", ""),
     ("Reddish.", ""), ("It is yellow.", "yellow"), ("Red or blue.", "")],
)  # fmt: skip
def test_an_answer_says_one_word(answer: str, word: str) -> None:
    assert said(answer) == word


def test_questions_of_one_form_are_told() -> None:
    assert form_of("Is there an orange circle?") == "is there a orange SHAPE"
    assert form_of("is there a TEAL rectangle") == form_of("Is there a red circle?")


def make_set(folder: Path, rows: list[tuple[str, str]]) -> Path:
    """A set of one picture, a red circle, in the public set's files."""
    image = Image.new("RGB", (64, 64), (240, 248, 255))
    ImageDraw.Draw(image).ellipse((18, 20, 42, 44), fill=(255, 0, 0))
    (folder / "images").mkdir()
    image.save(folder / "images" / "0.png")
    (folder / "questions.json").write_text(json.dumps([[q, a, 0] for q, a in rows]))
    return folder


def test_the_command_prints_each_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instructblip.easy_vqa.made_by_grammar", lambda: {"is there a SHAPE"})
    rows = [("is there a circle?", "yes"), ("is there a triangle?", "no"), ("zzz?", "teal")]
    assert cli.main(["eval", "--easy-vqa", str(make_set(tmp_path, rows)), "--show-wrong"]) == 0
    out = capsys.readouterr().out
    assert "| is there a SHAPE | yes | 100.0% | 2 |" in out
    assert "| zzz | no | 0.0% | 1 |" in out
    assert "| **all** | **66.7%** | 3 |" in out
    assert "'zzz?' wanted 'teal'" in out


@pytest.mark.parametrize("text", [None, "{", "[[1]]", '[["q", "a", "x"]]'])
def test_another_folder_is_said(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "questions.json").write_text(text)
    with pytest.raises(InstructBlipError, match="holds no easy-VQA set"):
        read_questions(tmp_path)
