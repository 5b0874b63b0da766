"""A data folder of an earlier version opens with everything in it; a newer one is left as it is."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from slow_engine import SlowEngine
from starlette.testclient import TestClient

from instructblip.errors import InstructBlipError
from tests.browser.driver import free_port
from tests.webui.old_folder import TOLD, copied, snapshot
from webui.__main__ import main
from webui.app import build_page
from webui.runs import Runs
from webui.schema import VERSION
from webui.server import create_app
from webui.sessions import COOKIE, load_key
from webui.settings import Settings
from webui.storage.servers import Servers
from webui.store import Store

ANONYMOUS = [each for each in TOLD["visitors"] if each["login"] is None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copied(tmp_path / "data")


def same(store: Store, told: dict[str, Any], unfinished: str | None) -> None:
    owner = told["owner"]
    assert [chat.id for chat in store.chats(owner)] == [chat["id"] for chat in told["chats"]]
    for chat in told["chats"]:
        assert store.chat(owner, chat["id"]).title == chat["title"]
        path = store.path(owner, chat["id"])
        assert [turn.id for turn in path] == [turn["id"] for turn in chat["path"]]
        versions = store.versions(owner, chat["id"])
        for turn, before in zip(path, chat["path"], strict=True):
            for name in ("question", "answer", "picture_id", "error_code", "statistics"):
                assert getattr(turn, name) == before[name]
            assert list(turn.answer_ids) == before["answer_ids"]
            assert turn.finish == (before["finish"] or unfinished)
            assert versions[turn.id] == before["versions"]
            assert store.picture_bytes(owner, turn.picture_id)
            assert store.picture_mime(owner, turn.picture_id) == "image/png"


def test_everything_of_version_1_is_there(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(folder)
    for told in TOLD["visitors"]:
        same(store, told, None)
    assert store.recover() == 1  # the unfinished answer
    for told in TOLD["visitors"]:
        same(store, told, "interrupted")
        assert store.has_answers(told["owner"])
    assert caplog.text == ""
    for table in ("turns", "picture_owners"):
        sizes = store._db.execute(f"SELECT min(size) FROM {table}").fetchone()[0]
        assert sizes > 0


def test_an_unfinished_answer_of_version_1_waits_for_its_server(folder: Path) -> None:
    other = Servers(folder).join()
    store = Store(folder)
    assert store.recover() == 0
    other.leave()
    assert store.recover() == 1


def test_its_cookies_and_logins_lead_to_its_chats(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = TOLD["made"] + 3600
    monkeypatch.setattr(time, "time", lambda: now)  # cookies have an age
    for told in ANONYMOUS:
        client = TestClient(app_of(folder), base_url="http://127.0.0.1:7860")
        client.cookies.set(COOKIE, told["cookie"])
        shown(client, told)
    (login,) = (each for each in TOLD["visitors"] if each["login"])
    client = TestClient(
        app_of(folder, auth=(f"{login['login']}:{login['password']}",)),
        base_url="http://127.0.0.1:7860",
    )
    values = {"name": login["login"], "password": login["password"]}
    client.post("/login", data=values, follow_redirects=False)
    shown(client, login)


def app_of(folder: Path, **values: Any) -> FastAPI:
    store, engine = Store(folder), SlowEngine(0.01, 2)
    settings = Settings(data=str(folder), **values)
    return create_app(settings, engine, store, Runs(engine, store), build_page)


def shown(client: TestClient, told: dict[str, Any]) -> None:
    """Over HTTP: the list of chats, each chat, each picture."""
    config = client.get("/config").json()
    load = next(d for d in config["dependencies"] if d["api_name"] == "load")
    for chat in told["chats"]:
        body = {
            "data": ['{{"chat": "{}"}}'.format(chat["id"]), None], "fn_index": load["id"],
            "session_hash": chat["id"][:10],
        }  # fmt: skip
        answer = client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code == 200, answer.text
        for other in told["chats"]:
            assert other["id"] in answer.text
        for turn in chat["path"]:
            assert turn["id"] in answer.text
            assert client.get(f"/pictures/{turn['picture_id']}").content[:4] == b"\x89PNG"


# --- newer folders -----------------------------------------------------------------------------


def newer(folder: Path) -> Path:
    """As a later program would leave it."""
    db = sqlite3.connect(folder / "chats.sqlite3")
    db.execute("ALTER TABLE chats ADD COLUMN colour TEXT")
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.commit()
    db.close()
    return folder


def newer_in_its_log(folder: Path) -> Path:
    """As a later program left it that was killed: the version stands in the write-ahead log alone."""
    path = folder / "chats.sqlite3"
    before = path.read_bytes()
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("CREATE TABLE more (a)")
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.commit()
    wal = path.with_name(path.name + "-wal").read_bytes()
    db.close()
    path.write_bytes(before)
    path.with_name(path.name + "-wal").write_bytes(wal)
    return folder


@pytest.mark.parametrize("make", [newer, newer_in_its_log])
def test_a_newer_folder_is_named_and_nothing_in_it_is_touched(
    folder: Path, make: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    make(folder)
    (folder / "cookie.key").unlink()
    before = snapshot(folder)
    with pytest.raises(InstructBlipError) as caught:
        Store(folder)
    assert caught.value.code == "store_newer"
    assert main(["--data", str(folder), "--port", str(free_port())]) == 2
    assert "newer version" in capsys.readouterr().err
    assert snapshot(folder) == before


def test_the_key_that_signs_is_kept_twice(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(folder)
    key = load_key(folder, store.visitors_by_cookie)
    assert caplog.text == ""
    assert (folder / "cookie.key.copy").stat().st_mode & 0o777 == 0o600
    for harm in (lambda p: p.unlink(), lambda p: p.write_bytes(b"short")):
        harm(folder / "cookie.key")
        assert load_key(folder, store.visitors_by_cookie) == key
        assert "made again of its copy" in caplog.text
        assert (folder / "cookie.key").read_bytes() == key
        caplog.clear()
        harm(folder / "cookie.key.copy")
        assert load_key(folder, store.visitors_by_cookie) == key
        assert (folder / "cookie.key.copy").read_bytes() == key
        caplog.clear()
    assert [p.read_bytes() for p in (folder / "damaged").rglob("cookie.key*")] == [b"short"] * 2


def test_when_both_keys_are_gone_it_is_said_whose_chats_are_lost(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(folder)
    (folder / "cookie.key").unlink()
    load_key(folder, store.visitors_by_cookie)
    assert "the chats of 2 visitor(s)" in caplog.text  # the login finds its own
    assert "backup" in caplog.text
    for told in TOLD["visitors"]:
        same(store, told, None)


def test_another_key_that_somebody_puts_there_is_taken_and_the_old_one_kept(folder: Path) -> None:
    store = Store(folder)
    old = load_key(folder, store.visitors_by_cookie)
    (folder / "cookie.key").write_bytes(b"n" * 32)
    assert load_key(folder, store.visitors_by_cookie) == b"n" * 32
    assert [p.read_bytes() for p in (folder / "damaged").rglob("cookie.key.copy")] == [old]
    assert (folder / "cookie.key.copy").read_bytes() == b"n" * 32
