"""The command line: one answer, a conversation, errors in one line with their exit code."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instructblip import cli
from instructblip.cli import main
from instructblip.engine.base import SamplingParams
from instructblip.errors import CheckpointError, InstructBlipError, OutOfMemory, PictureError
from instructblip.terminal import TerminalChat
from tests.tiny import make_checkpoint, picture

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def asked(tiny_folder: Path, tmp_path: Path) -> list[str]:
    """A question about a picture that the tiny model answers."""
    (tmp_path / "p.png").write_bytes(picture())
    call = ["infer", "--img_path", str(tmp_path / "p.png"), "--prompt", "what is it"]
    return [*call, "--model", str(tiny_folder)]


@pytest.fixture(scope="session")
def official_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights without a properties file: the official ones' values hold."""
    return make_checkpoint(tmp_path_factory.mktemp("official"))


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


# --- one answer ------------------------------------------------------------------------------------


def test_infer_prints_the_answer(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*asked, "--max_new_tokens", "6"]) == 0
    first = capsys.readouterr()
    assert first.out.strip()
    assert first.err == ""
    assert main([*asked, "--max-new-tokens", "6"]) == 0
    assert capsys.readouterr().out == first.out


def test_json_is_the_same_answer_in_one_object(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*asked, "--max_new_tokens", "6"]) == 0
    plain = capsys.readouterr().out
    assert main([*asked, "--max_new_tokens", "6", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["answer"] == plain.removesuffix("\n")
    assert value["prompt"] == "what is it"
    assert value["img_path"] == asked[2]
    assert value["model"] == "tiny"
    assert value["generation"] == "engine max_new_tokens=6"


def test_the_picture_is_taken_as_lavis_takes_it(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Alpha is dropped, and an EXIF orientation ignored: the answer is that of the bare pixels."""
    from PIL import Image

    bare = Image.open(io.BytesIO(picture()))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    bare.save(tmp_path / "turned.png", exif=exif)
    clear = bare.copy()
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    bare.save(tmp_path / "bare.png")
    call = ["infer", "--prompt", "what is it", "--model", str(tiny_folder), "--json"]
    answers = []
    for name in ("bare", "turned", "clear"):
        assert main([*call, "--img_path", str(tmp_path / f"{name}.png")]) == 0
        answers.append(json.loads(capsys.readouterr().out)["answer"])
    assert answers[0] == answers[1] == answers[2]


# --- which generation -----------------------------------------------------------------------------


def how(capsys: pytest.CaptureFixture[str], *call: str) -> str:
    """The generation that a call reports."""
    assert main([*call, "--json"]) == 0
    return str(json.loads(capsys.readouterr().out)["generation"])


def test_official_weights_answer_as_lavis_does(
    asked: list[str], official_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import instructblip
    from instructblip.images import open_as_lavis

    call = [*asked[:-1], str(official_folder)]
    assert main([*call, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["generation"] == "LAVIS"
    model = instructblip.load(official_folder, device="cpu")
    assert [value["answer"]] == model.generate([open_as_lavis(asked[2])], ["what is it"])
    assert main([*call[:3], "--prompt", "what is it " * 400, *call[5:]]) == 2  # over the context
    assert len(lines(capsys.readouterr().err)) == 1
    assert how(capsys, *call, "--num_beams", "2", "--max_length", "9") == (
        "LAVIS max_length=9 num_beams=2"
    )
    assert how(capsys, *call, "--no-lavis", "--max_new_tokens", "4") == (
        "engine max_new_tokens=4 repetition_penalty=1.5"
    )


def test_other_weights_answer_through_the_engine_unless_lavis_is_asked_for(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert how(capsys, *asked) == "engine max_new_tokens=8"
    assert how(capsys, *asked, "--lavis", "--max_length", "5") == "LAVIS max_length=5"
    assert how(capsys, *asked, "--num_beams", "1") == "LAVIS num_beams=1"
    assert how(capsys, *asked, "--temperature", "0.5", "--seed", "1").startswith("engine ")


def test_sampling_repeats_with_a_seed(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    nucleus = [*asked, "--use_nucleus_sampling", "--num_beams", "1", "--max_length", "12"]
    said = []
    for _ in range(2):
        assert main([*nucleus, "--seed", "5", "--temperature", "2"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "flags",
    [
        ("--lavis", "--max_new_tokens", "3"),
        ("--no-lavis", "--num_beams", "3"),
        ("--top_k", "3", "--length_penalty", "1"),
        ("--num_beams", "0"),
        ("--lavis", "--temperature", "0"),
        ("--no-lavis", "--temperature", "50"),
        ("--temperature", "-3"),
        ("--top_p", "nan"),
        ("--max_new_tokens", "0"),
    ],
)
def test_values_that_cannot_be_are_refused_before_the_model_is_loaded(
    asked: list[str], flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*asked[:-1], "no/such/folder", *flags]) == 2
    error = capsys.readouterr().err
    assert len(lines(error)) == 1
    assert any(flag.lstrip("-") in error for flag in flags if flag.startswith("--"))


# --- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "word", "code"),
    [
        (["--img_path", "nowhere.png"], "'nowhere.png' is not there", 2),
        (["--img_path", ""], "'' is not there", 2),
        (["--img_path", "README.md"], "README.md is not a picture", 2),
        (["--img_path", "instructblip"], "holds no pictures", 2),
        (["--prompt", ""], "--prompt is empty", 2),
        (["--prompt", "  \n"], "--prompt is empty", 2),
        (["--prompt", "what is it " * 400], "context", 2),
        (["--max_new_tokens", "many"], "invalid int value: 'many'", 2),
        (["--nonsense"], "unrecognized arguments: --nonsense", 2),
        (["--device", "abacus"], "abacus", None),
        (["--dtype", "int3"], "int3", None),
        (["--model", "no/such/folder"], "no/such/folder", 2),
    ],
)
def test_errors_are_one_line(
    asked: list[str],
    flags: list[str],
    word: str,
    code: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    if flags[0] == "--img_path":  # in its place: the flag may be given several times
        asked = [word for word in asked if word not in asked[1:3]]
    got = main([*asked, *flags])
    assert got == code or (code is None and got in (1, 2))
    printed = capsys.readouterr()
    assert printed.out.strip() == ""
    assert printed.err.startswith("error: ")
    assert len(lines(printed.err)) == 1
    assert word in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("call", [[], ["infer"], ["abacus"], ["infer", "--img_path"]])
def test_a_wrong_call_is_one_line(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call) == 2
    error = capsys.readouterr().err
    assert len(lines(error)) == 1
    assert "--help" in error


def test_a_prompt_is_needed_for_a_picture(
    asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*asked[:3], *asked[5:]]) == 2
    assert "--prompt is missing" in capsys.readouterr().err


@pytest.mark.parametrize("call", [["--help"], ["infer", "--help"], ["chat", "--help"]])
def test_help_is_no_error(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(call) == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (PictureError("A bad picture."), 2, "A bad picture."),
        (CheckpointError("Bad\nweights."), 1, "Bad weights."),
        (CheckpointError("No weights.", code="checkpoint_absent"), 2, "No weights."),
        (OutOfMemory("No room."), 1, "No room."),
        (InstructBlipError("So it is."), 1, "So it is."),
        (KeyboardInterrupt(), 1, "stopped by Ctrl-C"),
        (MemoryError(), 1, "memory does not suffice"),
        (OSError(28, "No space left on device", "/x/y"), 1, "/x/y: No space left on device"),
        (ZeroDivisionError("division\nby zero"), 1, "ZeroDivisionError: division by zero"),
    ],
)
def test_what_an_error_becomes(
    error: BaseException,
    code: int,
    words: str,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr("instructblip.infer.read_rows", broken)
    assert main(asked) == code
    told = capsys.readouterr().err
    assert len(lines(told)) == 1
    assert words in told
    assert main([*asked, "--debug"]) == code
    told = capsys.readouterr().err
    assert "Traceback (most recent call last)" in told
    assert words in lines(told)[-1]


def test_every_command_takes_debug() -> None:
    commands = next(a for a in cli._parser()._actions if a.dest == "command").choices
    assert {"infer", "chat", "eval"} <= set(commands)  # type: ignore[arg-type]
    for command in commands.values():  # type: ignore[union-attr]
        assert "--debug" in command._option_string_actions


def start(*arguments: str, **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "instructblip", *arguments], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # type: ignore[call-overload, no-any-return]  # fmt: skip


@pytest.mark.parametrize("moment", [0.0, 0.4, 1.0])
def test_ctrl_c_at_the_start_leaves_no_traceback(moment: float) -> None:
    """While Python imports, while the model is loaded, or while it answers."""
    running = start(
        "infer", "--img_path", "assets/examples/glasses.png", "--prompt", "What is on the left?",
        "--temperature", "1", "--max_new_tokens", "4000",
    )  # fmt: skip
    assert running.stderr is not None
    deadline = time.monotonic() + 60
    while not loaded(running.pid) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(moment)
    running.send_signal(signal.SIGINT)
    _, error = running.communicate(timeout=120)
    assert running.returncode in (0, 1)  # 0: it was done already
    if running.returncode:
        assert error == "error: stopped by Ctrl-C.\n"


def loaded(pid: int) -> bool:
    """Whether a process has come as far as opening PIL's library."""
    try:
        return "_imaging" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return True


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.png").write_bytes(picture())
    read, write = os.pipe()
    os.close(read)
    running = subprocess.run(
        [
            sys.executable, "-m", "instructblip", "infer", "--img_path", str(tmp_path),
            "--prompt", "What is on the left?",
        ],
        cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True, timeout=120,
    )  # fmt: skip
    os.close(write)
    assert running.returncode == 1
    assert running.stderr == ""


# --- a conversation -------------------------------------------------------------------------------


def test_a_conversation_in_the_terminal(new_engine, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(picture())
    out = io.StringIO()
    chat = TerminalChat(new_engine(), SamplingParams(max_new_tokens=5), None, out)
    talk = (
        f"what is it\n/picture {tmp_path}/p.png\nwhat is it\nhow many dogs\n/retry\n/undo\n"
        "/picture nowhere.png\n/what\n/new\n/retry\n/quit\n"
    )
    assert chat.run(io.StringIO(talk)) == 0
    text = out.getvalue()
    for part in ("no picture yet", "Taken back: how many dogs", "nowhere.png", "/quit ends", "nothing to ask"):  # fmt: skip
        assert part in text
    assert chat.conversation.leaf is None


def test_chat_on_the_command_line(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("what is it\n/quit\n"))
    assert main(["chat", "--img_path", asked[2], *asked[5:]]) == 0
    assert capsys.readouterr().out.count("> ") == 2
    assert main(["chat", "--temperature", "-1", "--model", "no/such/folder"]) == 2
    assert "temperature" in capsys.readouterr().err
