"""Two servers on one folder, damaged rows, lost keys, full shares: over HTTP against real servers."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.driver import ROOT, Server, slow_server
from tests.webui.damaging import Broken, open_file, set_cell
from tests.webui.visits import Visit

COOKIE = "instructblip_owner"
QUESTIONS = ("How many words are here?", "What is on the left?", "And on the right?")
PATIENCE = 60.0  # seconds
LOOKED_ON = ("--grace", "3600")  # an answer goes on although no page is attached


def until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(folder / "chats.sqlite3", timeout=30)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def ask(tab: Visit, question: str) -> None:
    tab.event("box", "submit", {"text": question, "files": []})


class Page:
    """A browser that has been here before: its cookie, and what its page shows."""

    def __init__(self, url: str, cookie: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=PATIENCE, cookies={COOKIE: cookie})
        config = self._http.get("/config").json()
        self._calls = {d["api_name"]: d for d in config["dependencies"]}
        self._session = secrets.token_hex(6)

    def show(self, chat: str = "") -> str:
        """Open the page, as its first event does."""
        return self._event("load", [json.dumps({"chat": chat}), None])

    def press(self, act: str, wanted: str = "", words: str = "") -> str:
        call = self._calls["act"]
        values = [None] * len(call["inputs"])
        data = {"act": act, "id": wanted, "text": words}
        return self._event("act", values, data)

    def _event(self, name: str, values: list[Any], event: Any = None) -> str:
        body = {
            "data": values, "fn_index": self._calls[name]["id"], "session_hash": self._session,
            "event_data": event,
        }  # fmt: skip
        answer = self._http.post("/gradio_api/run/predict", json=body)
        assert answer.status_code == 200, (answer.status_code, answer.text[:500])
        return answer.text

    def get(self, path: str) -> int:
        return self._http.get(path).status_code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test."""
    started: list[Server] = []

    def make(**values: Any) -> Server:
        started.append(slow_server(folder, **values).start())
        return started[-1]

    yield make
    for server in started:
        server.kill()


def talked(server: Server) -> str:
    """A visitor asks three questions in one chat; the cookie."""
    with Visit(server.url) as tab:
        tab.event(None, "load", '{"chat": "new"}')
        tab.event("scene", "click")
        for question in QUESTIONS:
            ask(tab, question)
            tab.follow()
        return str(tab._http.cookies[COOKIE])


# --- modes -----------------------------------------------------------------------------------------


def open_to_others(folder: Path) -> list[str]:
    return [str(p) for p in (folder, *folder.rglob("*")) if p.lstat().st_mode & 0o077]


@pytest.mark.skipif(os.name != "posix", reason="modes")
def test_nothing_in_the_data_folder_is_for_other_users(
    folder: Path, start: Callable[..., Server]
) -> None:
    server = start(delay=0.05)
    with Visit(server.url) as tab:
        tab.event(None, "load", '{"chat": "new"}')
        tab.event("scene", "click")
        ask(tab, "count 3")
        assert {p.name for p in folder.iterdir()} >= {
            "chats.sqlite3",
            "chats.sqlite3-wal",
            "cookie.key",
        }
        assert open_to_others(folder) == []
    server.kill()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    start()
    assert open_to_others(folder) == []


# --- two servers -------------------------------------------------------------------------------------


def test_a_second_server_leaves_the_firsts_running_answer_alone(
    folder: Path, start: Callable[..., Server]
) -> None:
    first = start(delay=0.1, flags=LOOKED_ON)
    with Visit(first.url) as tab:
        tab.event(None, "load", '{"chat": "new"}')
        tab.event("scene", "click")
        ask(tab, "count 3000")
        until(
            lambda: bool(rows(folder, "SELECT 1 FROM turns WHERE answer != ''")), "no words saved"
        )
        second = start()
        assert "cut off" not in second.log()
        assert rows(folder, "SELECT finish FROM turns") == [(None,)]
        cookie = str(tab._http.cookies[COOKIE])
        assert "count 3000" in Page(second.url, cookie).show()
        ((before,),) = rows(folder, "SELECT length(answer) FROM turns")
        tab.event("box", "stop")
        tab.follow()
    ((finish, answer),) = rows(folder, "SELECT finish, answer FROM turns")
    assert finish == "cancelled"
    assert len(answer) >= before > 0
    assert answer.split() == [str(number + 1) for number in range(len(answer.split()))]


def test_a_killed_servers_answer_is_interrupted_while_another_serves(
    folder: Path, start: Callable[..., Server]
) -> None:
    first, second = (start(delay=0.2, flags=LOOKED_ON) for _ in range(2))
    with Visit(first.url) as one, Visit(second.url) as two:
        for tab in (one, two):
            tab.event(None, "load", '{"chat": "new"}')
            tab.event("scene", "click")
            ask(tab, "count 3000")
        saved = "SELECT count(*) FROM turns WHERE answer != '' AND finish IS NULL"
        until(lambda: rows(folder, saved) == [(2,)], "no words saved")
        first.kill(signal.SIGKILL)
        third = start()
        assert "1 answer(s) of the last run were cut off" in third.log()
        assert rows(folder, "SELECT count(*) FROM turns WHERE finish IS NULL") == [(1,)]


# --- damage ----------------------------------------------------------------------------------------


def loop(folder: Path) -> None:
    db = open_file(folder)
    db.execute("UPDATE turns SET parent_id = (SELECT id FROM turns WHERE seq = 3) WHERE seq = 1")
    db.close()


def no_parent(folder: Path) -> None:
    set_cell(folder, "turns", "parent_id", 3, "gone")


def no_leaf(folder: Path) -> None:
    set_cell(folder, "chats", "leaf_id", 1, "gone")


def no_files(folder: Path) -> None:
    for path in (folder / "pictures").rglob("*"):
        if path.is_file():
            path.unlink()


def no_pictures_in_the_files(folder: Path) -> None:
    for path in (folder / "pictures").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))


def cell(column: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: set_cell(folder, "turns", column, 2, value)


HARM = {
    "answer_ids": cell("answer_ids", "not JSON"),
    "ids that are no numbers": cell("answer_ids", '["a", {}]'),
    "statistics": cell("statistics", '{"new_tokens": NaN, "decode": "fast"}'),
    "parameters": cell("parameters", '{"sampling": ["x"]}'),
    "no question": cell("question", None),
    "a blob": cell("answer", b"\xff\x00\xfe"),
    "no UTF-8": cell("question", Broken(b"caf\xe9 \xff")),
    "a number": cell("tokenizer", 7),
    "no time": lambda folder: set_cell(folder, "chats", "updated", 1, "yesterday"),
    "far future": lambda folder: set_cell(folder, "chats", "updated", 1, 1e300),
    "loop": loop, "no parent": no_parent, "no leaf": no_leaf,
    "no files": no_files, "broken files": no_pictures_in_the_files,
}  # fmt: skip


def test_each_kind_of_damage_leaves_the_rest_of_the_page(
    folder: Path, start: Callable[..., Server]
) -> None:
    """While the server runs, and after it has started anew: every load is 200 and shows the rest."""
    server = start(delay=0.001)
    cookie = talked(server)
    cookies = {name: copied(folder, server) for name in HARM}
    for number, (name, harm) in enumerate(HARM.items()):
        with only(folder, number + 1):
            if name not in FILES:
                harm(folder)
    check(server, cookies, cookie)
    server.kill()
    server = start(delay=0.001)
    assert "damaged row(s)" in server.log()
    check(server, cookies, cookie)
    for name in FILES:
        HARM[name](folder)
        check(server, cookies, cookie)
    assert "Traceback" not in server.log()


FILES = ("no files", "broken files")


def copied(folder: Path, server: Server) -> str:
    """Another visitor with the same chat; their cookie."""
    answer = httpx.get(server.url, timeout=PATIENCE)
    made = answer.cookies[COOKIE]
    mark = made.split(".")[1]
    db = open_file(folder)
    db.execute("INSERT INTO chats SELECT id || ?1, 'a-' || ?1, title, leaf_id || ?1, created, updated"
               " FROM chats WHERE rowid = 1", (mark,))  # fmt: skip
    columns = "question, picture_id, answer, answer_ids, tokenizer, finish, created"
    db.execute(f"INSERT INTO turns (id, chat_id, parent_id, {columns}) SELECT id || ?1, chat_id || ?1,"
               f" parent_id || ?1, {columns} FROM turns WHERE seq <= 3 ORDER BY seq", (mark,))  # fmt: skip
    db.execute("INSERT INTO picture_owners (picture_id, owner, created, size)"
               " SELECT picture_id, 'a-' || ?, created, size FROM picture_owners LIMIT 1", (mark,))  # fmt: skip
    db.close()
    return made


@contextmanager
def only(folder: Path, number: int) -> Iterator[None]:
    """Number a chat's rows as if it were the only one, as the harms do."""

    def shift(turns: int, chats: int) -> None:
        db = open_file(folder)
        for table, name, by in (("turns", "seq", turns), ("chats", "rowid", chats)):
            db.execute(f"UPDATE {table} SET {name} = -{name} - 100000")
            db.execute(f"UPDATE {table} SET {name} = -({name} + 100000) + ?", (by,))
        db.close()

    shift(-3 * number, -number)
    yield
    shift(3 * number, number)


def check(server: Server, cookies: dict[str, str], untouched: str) -> None:
    for name, cookie in cookies.items():
        shown = Page(server.url, cookie).show()
        there = sum(question in shown for question in QUESTIONS)
        assert there >= (1 if name == "no parent" else 2), (name, there)
    shown = Page(server.url, untouched).show()
    assert all(question in shown for question in QUESTIONS)


def test_a_chat_whose_pictures_are_lost_can_be_asked_on_with_a_new_one(
    folder: Path, start: Callable[..., Server]
) -> None:
    server = start(delay=0.001)
    with Visit(server.url) as tab:
        tab.event(None, "load", '{"chat": "new"}')
        tab.event("scene", "click")
        ask(tab, QUESTIONS[0])
        tab.follow()
        no_pictures_in_the_files(folder)
        server.kill()
        again = start(delay=0.001)
        cookie = str(tab._http.cookies[COOKIE])
    page = Page(again.url, cookie)
    assert QUESTIONS[0] in page.show()
    (picture,) = rows(folder, "SELECT picture_id FROM turns")
    assert page.get(f"/pictures/{picture[0]}") in (200, 404)
    with Visit(again.url, cookie) as tab:
        tab.event(None, "load", "{}")
        tab.event("scene", "click")
        ask(tab, "What now?")
        tab.follow()
    assert "What now?" in Page(again.url, cookie).show()
    assert rows(folder, "SELECT count(*) FROM turns WHERE finish = 'stop'") == [(2,)]


def test_a_damaged_file_is_salvaged_at_the_start_and_said_in_a_line(
    folder: Path, start: Callable[..., Server]
) -> None:
    server = start(delay=0.001)
    cookie = talked(server)
    server.kill(signal.SIGTERM)
    path = folder / "chats.sqlite3"
    ((root,),) = rows(folder, "SELECT rootpage FROM sqlite_master WHERE name = 'picture_owners'")
    data = bytearray(path.read_bytes())
    data[(root - 1) * 4096 : root * 4096] = secrets.token_bytes(4096)
    path.write_bytes(data)
    server = start(delay=0.001)
    (line,) = (each for each in server.log().splitlines() if "was damaged" in each)
    assert "1 chats with 3 turns" in line
    (kept,) = (folder / "damaged").rglob("chats.sqlite3")
    assert str(kept.parent) in line
    assert kept.read_bytes() == bytes(data)
    shown = Page(server.url, cookie).show()
    assert all(question in shown for question in QUESTIONS)


def test_what_is_no_database_is_refused_and_stays(folder: Path) -> None:
    folder.mkdir()
    (folder / "chats.sqlite3").write_bytes(b"my thesis" * 1000)
    command = [sys.executable, "-m", "webui", "--data", str(folder), "--port", "7999"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "is not a database" in done.stderr
    assert [p.name for p in folder.iterdir()] == ["chats.sqlite3"]


# --- the key -----------------------------------------------------------------------------------------


def test_a_deleted_key_parts_nobody_from_their_chats(
    folder: Path, start: Callable[..., Server]
) -> None:
    server = start(delay=0.001)
    cookie = talked(server)
    server.kill()
    (folder / "cookie.key").unlink()
    server = start()
    assert "made again of its copy" in server.log()
    assert QUESTIONS[0] in Page(server.url, cookie).show()
    server.kill()
    for path in folder.glob("cookie.key*"):
        path.unlink()
    server = start()
    assert "the chats of 1 visitor(s)" in server.log()
    assert QUESTIONS[0] not in Page(server.url, cookie).show()
    assert rows(folder, "SELECT count(*) FROM turns") == [(3,)]


# --- many chats, full shares -------------------------------------------------------------------------


def test_three_thousand_chats_make_a_small_page_and_are_all_reached(
    folder: Path, start: Callable[..., Server]
) -> None:
    server = start(delay=0.001)
    cookie = talked(server)
    db = sqlite3.connect(folder / "chats.sqlite3", timeout=30)
    ((chat_id,),) = db.execute("SELECT id FROM chats").fetchall()
    for number in range(3000):
        db.execute("INSERT INTO chats SELECT ?, owner, ?, ?, ?, ? FROM chats WHERE id = ?",
                   (f"c{number}", f"Chat number {number}", f"t{number}", 1e9, 1e9 - number, chat_id))  # fmt: skip
        db.execute(
            "INSERT INTO turns (id, chat_id, question, picture_id, finish, created)"
            " SELECT ?, ?, ?, picture_id, 'stop', 1e9 FROM turns WHERE chat_id = ? LIMIT 1",
            (f"t{number}", f"c{number}", f"Chat number {number}", chat_id),
        )
    db.commit()
    db.close()
    page = Page(server.url, cookie)
    shown = page.show()
    assert len(shown) < 300_000
    assert "Chat number 98" in shown
    assert "Chat number 99" not in shown  # with the one that was asked it is a hundred
    more = page.press("more")
    assert "Chat number 198" in more
    assert len(more) < 300_000
    for _ in range(20):
        more = page.press("more")
    assert "Chat number 998" in more
    assert "Chat number 1000" not in more
    assert "use the search" in more
    assert "Chat number 2999" in page._event("search", ["number 2999", None])


def test_a_hostile_visitor_with_ever_new_cookies_leaves_room_for_others(
    folder: Path, start: Callable[..., Server]
) -> None:
    """All from one address, as behind a tunnel; one of them is known, one is new."""
    server = start(delay=0.001, flags=("--storage", "0.0006"))
    cookie = talked(server)
    refused = 0
    for _ in range(25):
        with Visit(server.url) as tab:
            tab.event(None, "load", '{"chat": "new"}')
            tab.event("scene", "click")
            refused += not rows(folder, "SELECT 1 FROM picture_owners WHERE owner = "
                                f"'a-{tab._http.cookies[COOKIE].split('.')[1]}'")  # fmt: skip
    assert refused > 5
    with Visit(server.url, cookie) as tab:
        tab.event(None, "load", "{}")
        tab.event("scene", "click")
        ask(tab, "Still here?")
        tab.follow()
    assert "Still here?" in Page(server.url, cookie).show()
    assert "Traceback" not in server.log()
