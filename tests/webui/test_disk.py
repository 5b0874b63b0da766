"""A disk that is full or cannot be written: told as what it is, and nothing is swallowed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from instructblip.errors import InstructBlipError
from tests.tiny_picture import picture
from webui.disk import as_disk_error, transaction
from webui.i18n import LANGUAGES, error_text
from webui.records import Turn
from webui.store import Store


def ask(store: Store, words: str = "What is it?") -> Turn:
    chat = store.new_chat("a-1")
    return store.add_turn("a-1", chat.id, None, words, store.add_picture("a-1", picture()))


def fill(store: Store) -> None:
    """No further page for the database."""
    store._db.execute("PRAGMA max_page_count = 1")  # as many as it has


def empty(store: Store) -> None:
    store._db.execute("PRAGMA max_page_count = 1000000")


def test_a_full_database_is_called_full_and_takes_writes_again(store: Store) -> None:
    turn = ask(store)
    store.probe()
    fill(store)
    for write in (
        store.probe,
        lambda: store.write_answer(turn.id, "long " * 20_000, range(9)),
        lambda: ask(store, "long " * 20_000),
    ):
        with pytest.raises(InstructBlipError) as told:
            write()
        assert told.value.code == "store_full"
        for language in LANGUAGES:
            words = error_text(language, told.value)
            assert "OperationalError" not in words
            assert "full" in words or "已满" in words
    assert store.turn("a-1", turn.id) == turn
    empty(store)
    store.probe()
    store.write_answer(turn.id, "long " * 20_000, range(9))
    assert Store(store.folder).turn("a-1", turn.id).answer_ids == tuple(range(9))


@pytest.mark.parametrize("code", ["FULL", "IOERR", "BUSY"])
def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path, code: str) -> None:
    """One that stays open makes every later write a part of it, never to be kept."""
    path = tmp_path / "x.sqlite3"

    class Broken(sqlite3.Connection):
        broken = False

        def execute(self, statement, *values):
            if statement == "COMMIT" and self.broken:
                error = sqlite3.OperationalError("the disk")
                error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
                raise error
            return super().execute(statement, *values)

    database = sqlite3.connect(path, isolation_level=None, factory=Broken)
    database.execute("CREATE TABLE t (a)")
    database.broken = True
    with pytest.raises(InstructBlipError), transaction(database):
        database.execute("INSERT INTO t VALUES (1)")
    database.broken = False
    assert not database.in_transaction
    with transaction(database):
        database.execute("INSERT INTO t VALUES (2)")
    assert sqlite3.connect(path).execute("SELECT a FROM t").fetchall() == [(2,)]


def test_a_probe_leaves_nothing_behind(store: Store) -> None:
    turn = ask(store)
    before = sorted(path.name for path in store.folder.iterdir())
    for _ in range(3):
        store.probe()
    assert sorted(path.name for path in store.folder.iterdir()) == before
    names = {row["name"] for row in store._db.execute("SELECT name FROM sqlite_master")}
    assert "probe" not in names
    assert store.turn("a-1", turn.id) == turn


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device", "/srv/data/x"), "store_full"),
        (OSError(27, "File too large"), "store_full"),
        (PermissionError(13, "Permission denied", "/srv/data/x"), "store_unwritable"),
        (OSError(30, "Read-only file system"), "store_unwritable"),
        (OSError("no number"), None),
        (sqlite3.OperationalError("not raised by SQLite"), None),
        (ValueError("something else"), None),
    ],
)
def test_what_the_system_says_is_told_without_the_machines_paths(
    error: Exception, code: str | None
) -> None:
    told = as_disk_error(error)
    assert (told.code if told else None) == code
    assert "/srv" not in str(told)


def test_a_folder_that_is_gone_or_read_only_cannot_be_written(store: Store) -> None:
    database = store._db
    store._db = sqlite3.connect(f"file:{store.folder}/chats.sqlite3?mode=ro", uri=True)
    with pytest.raises(InstructBlipError) as told:
        store.probe()
    assert told.value.code == "store_unwritable"
    store._db = database
    store.folder = store.folder / "gone"
    with pytest.raises(InstructBlipError) as told:
        store.probe()
    assert told.value.code == "store_unwritable"
