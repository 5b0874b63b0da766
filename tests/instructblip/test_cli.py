"""The command line: one answer, a conversation, and errors in one sentence."""

import io
from pathlib import Path

import pytest

from instructblip.cli import TerminalChat, main
from instructblip.engine.base import SamplingParams
from tests.tiny import picture


def test_infer_prints_the_answer(tiny_folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "p.png").write_bytes(picture())
    call = ["infer", "--img_path", str(tmp_path / "p.png"), "--prompt", "what is it"]
    assert main([*call, "--model", str(tiny_folder), "--max_new_tokens", "6"]) == 0
    first = capsys.readouterr().out
    assert first.strip()
    assert main([*call, "--model", str(tiny_folder), "--max_new_tokens", "6"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--img_path", "nowhere.png"], "nowhere.png"),
        (["--temperature", "-3"], "temperature"),
        (["--device", "abacus"], "abacus"),
        (["--model", "no/such/folder"], "config.json"),
    ],
)
def test_errors_are_one_sentence(
    tiny_folder: Path, tmp_path: Path, capsys, flags: list[str], word: str
) -> None:
    (tmp_path / "p.png").write_bytes(picture())
    call = ["infer", "--img_path", str(tmp_path / "p.png"), "--prompt", "x"]
    assert main([*call, "--model", str(tiny_folder), *flags]) == 2
    error = capsys.readouterr().err
    assert word in error
    assert "Traceback" not in error


def test_a_conversation_in_the_terminal(new_engine, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(picture())
    out = io.StringIO()
    chat = TerminalChat(new_engine(), SamplingParams(max_new_tokens=5), None, out)
    lines = (
        f"what is it\n/picture {tmp_path}/p.png\nwhat is it\nhow many dogs\n/retry\n/undo\n"
        "/picture nowhere.png\n/what\n/new\n/retry\n/quit\n"
    )
    assert chat.run(io.StringIO(lines)) == 0
    text = out.getvalue()
    for part in ("no picture yet", "Taken back: how many dogs", "nowhere.png", "/quit ends", "nothing to ask"):  # fmt: skip
        assert part in text
    assert chat.conversation.leaf is None
