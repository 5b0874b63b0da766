"""The program itself: what it refuses at the start, and how it ends, with an answer half written."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from driver import HERE, PATIENCE, ROOT, Server, free_port
from slow_engine import SlowEngine
from visits import Visit

from instructblip.errors import CheckpointError, OutOfMemory
from webui.__main__ import listen, main
from webui.settings import Settings

HTML = {"Accept": "text/html,*/*"}
BAD_LOGINS = (
    "alice",
    "alice:",
    ":secret",
    "alice:one,alice:two",
    "alice:one,bob",
    "x" * 101 + ":y",
)


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    """``python -m webui`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "webui", *flags], cwd=ROOT, capture_output=True, text=True,
        timeout=120, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence; never a traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def until(true: Callable[[], Any]) -> Any:
    """Wait for something that will come, however busy the machine."""
    end = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


# --- what is refused -------------------------------------------------------------------------------


def test_a_taken_port_names_the_next_free_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = refusal(run("--port", str(port), "--data", str(tmp_path / "data")))
        assert f"Port {port} is taken" in words
        free = int(words.rsplit("--port ", 1)[1])
        assert port < free < port + 100
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", free))
    assert not (tmp_path / "data").exists()


def test_an_address_of_another_machine(tmp_path: Path) -> None:
    # 192.0.2.0/24 is for documentation: no machine has it.
    words = refusal(run("--host", "192.0.2.1", "--data", str(tmp_path)))
    assert "Cannot listen on 192.0.2.1:7860" in words


@pytest.mark.parametrize("below", ["data", "a/b"])
def test_a_data_folder_that_cannot_be_made(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()  # root may write anywhere, but nobody below a regular file
    folder = tmp_path / "file" / below
    words = refusal(run("--port", str(free_port()), "--data", str(folder)))
    assert f"The data folder {folder} cannot be written (Not a directory)" in words
    assert "--data FOLDER" in words


def test_a_data_folder_on_a_file_system_that_takes_no_files() -> None:
    words = refusal(run("--port", str(free_port()), "--data", "/proc/self"))
    assert "The data folder /proc/self cannot be written" in words


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("cookie.key", b"short", "cookie.key is damaged (5 bytes instead of 32)"),
        ("chats.sqlite3", b"no database, and not empty " * 100, "chats.sqlite3"),
    ],
)
def test_a_damaged_data_folder(tmp_path: Path, name: str, damage: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(damage)
    assert words in refusal(run("--port", str(free_port()), "--data", str(tmp_path)))
    assert (tmp_path / name).read_bytes() == damage  # what may be rescued is not overwritten


@pytest.mark.parametrize("pairs", BAD_LOGINS)
def test_a_login_of_the_wrong_form_is_not_repeated(
    pairs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--auth", pairs]) == 2
    error = capsys.readouterr().err
    assert "--auth … is not allowed: use USER:PASS, several comma separated" in error
    assert pairs not in error


@pytest.mark.parametrize(
    ("flags", "warns"),
    [
        (["--host", "0.0.0.0"], True),
        (["--host", "0.0.0.0", "--auth", "alice:secret"], False),
        (["--host", "127.0.0.1"], False),
        (["--host", "localhost"], False),
    ],
)
def test_a_warning_when_everybody_can_reach_it(
    flags: list[str], warns: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_model(settings: Settings) -> SlowEngine:
        raise CheckpointError("The folder holds no model.")

    flags += ["--port", str(free_port()), "--data", str(tmp_path)]
    assert main(flags, no_model) == 2
    out, error = capsys.readouterr()
    assert ("WARNING: listening on 0.0.0.0 without a login" in out) is warns
    assert ("--auth USER:PASS" in out) is warns
    assert "secret" not in out
    assert error == "error: The folder holds no model.\n"


def test_an_error_of_the_program_is_not_hidden(tmp_path: Path) -> None:
    def broken(settings: Settings) -> SlowEngine:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["--port", str(free_port()), "--data", str(tmp_path)], broken)


# --- how it begins and ends ------------------------------------------------------------------------


class Program(Server):
    """The slow engine's server, with its uploads in a folder of the test."""

    def __init__(self, folder: Path, *flags: str) -> None:
        script = str(HERE / "serve.py")
        command = ["env", f"TMPDIR={folder / 'temporary'}", sys.executable, script, *flags]
        (folder / "temporary").mkdir(exist_ok=True)
        super().__init__(command, folder / "data")
        self.folder = folder

    def in_the_background(self) -> Program:
        """Begin with Ctrl-C ignored, as ``nohup … &`` in a script does."""
        self._command[:0] = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
        return self

    def start_only(self) -> Program:
        """Start and wait until it accepts a connection."""
        with suppress(RuntimeError):
            self.start(timeout=0)
        until(self._accepts)
        return self

    def end(self, how: signal.Signals) -> str:
        """Send a signal, wait for a clean end, return the log."""
        assert self.process is not None
        self.process.send_signal(how)
        assert self.process.wait(PATIENCE) == 0, self.log()
        assert "Traceback" not in self.log()
        return self.log()

    def turns(self) -> list[tuple[str, str, str | None]]:
        """Question, answer and end of each stored turn."""
        path = self.folder / "data" / "chats.sqlite3"
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT question, answer, finish FROM turns ORDER BY created")
            return rows.fetchall()

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE).close()
        except OSError:
            return False
        return True


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    made: list[Program] = []

    def make(*flags: str) -> Program:
        made.append(Program(tmp_path, *flags))
        return made[-1]

    yield make
    for each in made:
        each.kill()


def ask(tab: Visit, question: str) -> threading.Thread:
    """Ask about a scene and look on, until the answer or the server ends."""
    tab.event(None, "load", '{"chat": "new"}')
    tab.event("scene", "click")
    tab.event("box", "submit", {"text": question, "files": []})

    def look() -> None:
        with suppress(httpx.HTTPError, AssertionError):
            tab.follow()

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    return looking


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_keeps_what_was_answered_so_far(
    program: Callable[..., Program], how: signal.Signals
) -> None:
    server = program("--slots", "1")
    server.start()
    with suppress(httpx.HTTPError), Visit(server.url) as one, Visit(server.url) as two:
        looking = [ask(one, "count 2000")]
        until(lambda: "5" in server.turns()[0][1])
        looking.append(ask(two, "this one waits"))
        until(lambda: len(server.turns()) == 2)
        log = server.end(how)
        for each in looking:
            each.join(PATIENCE)
    (question, answer, finish), (waiting, nothing, cancelled) = server.turns()
    assert (question, finish) == ("count 2000", "cancelled")
    assert answer.startswith("1 2 3 4 5")
    assert (waiting, nothing, cancelled) == ("this one waits", "", "cancelled")
    assert f"Open http://127.0.0.1:{server.port}/ in a browser" in log
    assert list((server.folder / "temporary").iterdir()) == []  # nobody's uploads are left behind


def test_ctrl_c_for_others_does_not_end_a_server_in_the_background(
    program: Callable[..., Program],
) -> None:
    server = program().in_the_background()
    server.start()
    assert server.process is not None
    server.process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        server.process.wait(2)
    assert httpx.get(server.url + "healthz", timeout=PATIENCE).json()["ok"] is True
    server.end(signal.SIGTERM)


def test_the_tunnel_ends_with_the_server(program: Callable[..., Program], tmp_path: Path) -> None:
    note = tmp_path / "pid"
    tunnel = f"sh -c 'echo $$ >{note}; echo https://chat.example.org; exec sleep 600'"
    server = program("--share", "--tunnel-command", tunnel)
    server.start()
    until(lambda: "Share link: https://chat.example.org" in server.log())
    assert "Login for the share link: name guest, password " in server.log()
    server.end(signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_kill_is_made_good_at_the_next_start(program: Callable[..., Program]) -> None:
    server = program()
    server.start()
    with suppress(httpx.HTTPError), Visit(server.url) as tab:
        ask(tab, "count 2000")
        until(lambda: "5" in server.turns()[0][1])
        server.kill()
    assert server.turns()[0][2] is None
    server.start()
    assert "1 answer(s) of the last run were cut off; their text was kept." in server.log()
    _, answer, finish = server.turns()[0]
    assert answer.startswith("1 2 3 4 5")
    assert finish == "interrupted"
    server.end(signal.SIGTERM)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_while_it_loads_and_can_be_stopped(
    program: Callable[..., Program], how: signal.Signals
) -> None:
    server = program("--loading", "600", "--root-path", "/ui").start_only()
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        health = client.get("/healthz")
        assert (health.status_code, health.json()) == (503, {"ok": False})
        page = client.get("/", headers=HTML)
        assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
        assert "The model is being loaded" in page.text
        assert 'http-equiv="refresh"' in page.text
        chinese = client.get("/?chat=x", headers={**HTML, "Accept-Language": "zh-CN,en"})
        assert "正在加载模型" in chinese.text
        with pytest.raises(httpx.ReadTimeout):  # anything else waits for the real page
            client.get("/config", timeout=httpx.Timeout(PATIENCE, read=0.2))
    server.end(how)


def test_who_comes_early_gets_the_page_in_time(program: Callable[..., Program]) -> None:
    server = program("--loading", "0.5").start_only()
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
        assert client.get("/config").json()["components"]
        assert client.get("/healthz").json()["ok"] is True
        assert "The model is being loaded" not in client.get("/", headers=HTML).text
    server.end(signal.SIGTERM)


def test_memory_for_keys_and_values_is_what_the_settings_say(tmp_path: Path) -> None:
    from instructblip.engine.kv_cache import CacheShape
    from tests.tiny import make_checkpoint
    from webui.__main__ import load_engine

    tiny_folder = make_checkpoint(tmp_path / "tiny")

    def engine(gigabytes: float) -> Any:
        return load_engine(Settings(model=str(tiny_folder), device="cpu", kv_memory=gigabytes))

    made = engine(0)
    try:
        model = made._model
        each = CacheShape.of(model.text_config).nbytes(model.properties.context_length, model.dtype)
    finally:
        made.close()
    small = engine(2.5 * each / 1e9)
    try:
        assert small.statistics()["slot_bytes"] == 2 * each
    finally:
        small.close()
    with pytest.raises(OutOfMemory, match="--kv-memory"):
        engine(0.5 * each / 1e9)


def test_memory_for_pictures_is_what_the_settings_say(tmp_path: Path) -> None:
    from instructblip.engine.base import Request, SamplingParams
    from tests.tiny import make_checkpoint, picture
    from webui.__main__ import load_engine

    folder = make_checkpoint(tmp_path / "tiny")

    def held(gigabytes: float) -> int:
        engine = load_engine(Settings(model=str(folder), device="cpu", picture_memory=gigabytes))
        try:
            for n in range(4):
                engine.register_picture(str(n), picture())
                once = SamplingParams(max_new_tokens=1)
                assert list(engine.submit(Request(str(n), "what is it", str(n), sampling=once)))
            return int(engine.statistics()["picture_bytes"])
        finally:
            engine.close()

    data = 4 * len(picture())  # as registered; four of what was seen, or the last one alone
    assert held(0.25) - data == 4 * (held(0) - data) > 0


def test_small_answers_are_not_held_back() -> None:
    """Nagle's algorithm and a client's late acknowledgement would cost each 40 ms."""

    async def accepted() -> int:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            option = writer.get_extra_info("socket").getsockopt
            done.set_result(option(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = listen("127.0.0.1", 0)
        async with await asyncio.start_server(take, sock=listening):
            socket.create_connection(listening.getsockname()).close()
            return await done

    assert asyncio.run(accepted())
