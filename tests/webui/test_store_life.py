"""Pictures of a store, what deletion removes, what a crash leaves, many threads, broken files."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from instructblip.errors import InstructBlipError, PictureError, UnknownTurn
from tests.tiny_picture import picture
from webui import schema
from webui.records import Turn
from webui.schema import VERSION
from webui.storage.opening import open_database
from webui.store import UNUSED_PICTURE_AGE, Store

RED, BLUE = (200, 30, 30), (30, 30, 200)


def ask(store: Store, owner: str, data: bytes, chat_id: str | None = None) -> Turn:
    chat_id = chat_id or store.new_chat(owner).id
    return store.add_turn(owner, chat_id, None, "What?", store.add_picture(owner, data))


def files(store: Store) -> set[str]:
    return {path.name for path in (store.folder / "pictures").rglob("*") if path.is_file()}


def refused(attempt: Callable[[], object]) -> InstructBlipError:
    with pytest.raises(InstructBlipError) as caught:
        attempt()
    return caught.value


# --- pictures and deletion -------------------------------------------------------------------------


def test_a_picture_is_kept_once_and_reached_by_whoever_brought_it(store: Store) -> None:
    mine, other = (store.add_picture(owner, picture(RED), "p.png") for owner in ("a-1", "a-2"))
    assert mine == other
    assert files(store) == {mine}
    assert store.picture_bytes("a-1", mine).startswith(b"\x89PNG")
    assert store.picture_mime("a-2", mine) == "image/png"
    assert not store.owns_picture("a-3", mine)


@pytest.mark.parametrize("data", [b"", b"not a picture", picture()[:60]])
def test_what_is_no_picture_leaves_nothing(store: Store, data: bytes) -> None:
    with pytest.raises(PictureError):
        store.add_picture("a-1", data)
    assert files(store) == set()


def test_deleting_a_chat_removes_its_turns_and_pictures(store: Store) -> None:
    turn = ask(store, "a-1", picture(RED))
    again = ask(store, "a-1", picture(BLUE), turn.chat_id)
    store.delete_chat("a-1", turn.chat_id)
    assert files(store) == set()
    for gone in (turn, again):
        with pytest.raises(UnknownTurn):
            store.turn("a-1", gone.id)
        assert not store.owns_picture("a-1", gone.picture_id)
    assert store.chats("a-1") == []


def test_a_picture_stays_while_another_chat_or_owner_shows_it(store: Store) -> None:
    one, two = ask(store, "a-1", picture(RED)), ask(store, "a-1", picture(RED))
    theirs = ask(store, "a-2", picture(RED))
    store.delete_chat("a-1", one.chat_id)
    assert store.owns_picture("a-1", one.picture_id)
    store.delete_chat("a-1", two.chat_id)
    assert not store.owns_picture("a-1", one.picture_id)
    assert store.picture_bytes("a-2", theirs.picture_id)
    store.delete_chat("a-2", theirs.chat_id)
    assert files(store) == set()


def test_an_answer_that_ends_after_its_chat_was_deleted_is_dropped(store: Store) -> None:
    turn = ask(store, "a-1", picture())
    store.delete_chat("a-1", turn.chat_id)
    store.write_answer(turn.id, "late", [1])
    store.finish_turn(
        turn.id, finish="stop", answer="late", answer_ids=[1], qformer_text="", tokenizer="",
        statistics={},
    )  # fmt: skip
    assert store.chats("a-1") == []


def test_a_picture_whose_file_is_gone_is_unknown(store: Store) -> None:
    picture_id = store.add_picture("a-1", picture())
    store.picture_path("a-1", picture_id).unlink()
    with pytest.raises(UnknownTurn):
        store.picture_bytes("a-1", picture_id)
    assert store.add_picture("a-1", picture()) == picture_id  # brought again, it is back
    assert store.picture_bytes("a-1", picture_id)


@settings(deadline=None, max_examples=20)
@given(name=st.text(st.characters(exclude_categories=()), max_size=300))
@example("\udcff.png")
@example("..")
def test_any_file_name_is_taken(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    store = Store(tmp_path_factory.getbasetemp() / "names")
    assert store.owns_picture("a-1", store.add_picture("a-1", picture(), name))
    store.close()


def test_a_picture_may_be_as_large_as_the_server_was_told(tmp_path: Path) -> None:
    data = picture()
    assert refused(
        lambda: Store(tmp_path, max_picture=len(data) - 1).add_picture("a-1", data)
    ).code == ("picture_too_large")
    assert Store(tmp_path, max_picture=len(data)).add_picture("a-1", data)


# --- a server that was killed ----------------------------------------------------------------------


def test_answers_cut_by_a_crash_keep_their_text(store: Store) -> None:
    cut, done = ask(store, "a-1", picture()), ask(store, "a-1", picture())
    store.write_answer(cut.id, "Half of", [1, 2])
    store.finish_turn(
        done.id, finish="stop", answer="All.", answer_ids=[1], qformer_text="What?", tokenizer="w",
        statistics={},
    )  # fmt: skip
    after = Store(store.folder)  # the first one was never closed
    assert after.recover() == 1
    assert after.recover() == 0
    kept = after.turn("a-1", cut.id)
    assert (kept.finish, kept.answer, kept.answer_ids) == ("interrupted", "Half of", (1, 2))
    assert after.turn("a-1", done.id).finish == "stop"
    assert after.path("a-1", cut.chat_id) == [kept]


def test_a_start_removes_what_nobody_can_reach(store: Store) -> None:
    asked = ask(store, "a-1", picture(RED))
    fresh = store.add_picture("a-1", picture(BLUE))
    old = store.add_picture("a-1", picture((1, 2, 3)))
    folder = store.folder / "pictures"
    (folder / "ab").mkdir(exist_ok=True)
    (folder / "ab" / ("ab" * 16)).write_bytes(b"written, but never recorded")
    (folder / "ab" / ".new-x").write_bytes(b"half written")
    empty = store.new_chat("a-1")
    store._db.execute(
        "UPDATE picture_owners SET created = created - ? WHERE picture_id IN (?, ?)",
        (UNUSED_PICTURE_AGE + 1, old, asked.picture_id),
    )
    store.recover()
    assert files(store) == {asked.picture_id, fresh}
    with pytest.raises(UnknownTurn):
        store.chat("a-1", empty.id)


def test_a_failed_step_leaves_nothing_half_done(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = ask(store, "a-1", picture())

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(store._pictures, "remove", full)
    with pytest.raises(OSError, match="No space"):
        store.delete_chat("a-1", turn.chat_id)
    assert store.path("a-1", turn.chat_id) == [turn]
    assert store.picture_bytes("a-1", turn.picture_id)


def test_many_threads_write_at_once(store: Store) -> None:
    chats = [store.new_chat(f"a-{number}") for number in range(8)]
    failed: list[BaseException] = []

    def work(owner: str, chat_id: str) -> None:
        try:
            parent = None
            for number in range(5):
                picture_id = store.add_picture(owner, picture((number, 0, 0)))
                parent = store.add_turn(owner, chat_id, parent, f"{number}", picture_id).id
                store.write_answer(parent, owner, [number])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(chat.owner, chat.id)) for chat in chats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    for chat in chats:
        path = store.path(chat.owner, chat.id)
        assert [turn.question for turn in path] == list("01234")
        assert {turn.answer for turn in path} == {chat.owner}


# --- the file --------------------------------------------------------------------------------------


def test_a_store_opens_again_with_everything_in_it(store: Store) -> None:
    turn = ask(store, "a-1", picture())
    store.close()
    assert Store(store.folder).turn("a-1", turn.id) == turn


def test_a_database_of_a_newer_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "chats.sqlite3"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE things (a)")
        made.execute(f"PRAGMA user_version = {VERSION + 6}")
    made.close()
    error = refused(lambda: Store(tmp_path))
    assert error.code == "store_newer"
    for told in (str(path), str(VERSION + 6), "Update the program", "--data"):
        assert told in str(error)
    with sqlite3.connect(path) as again:
        assert again.execute("PRAGMA user_version").fetchone() == (VERSION + 6,)
        assert again.execute("SELECT name FROM sqlite_master").fetchall() == [("things",)]
    again.close()


@pytest.mark.parametrize(
    "content", [b"this is no database" * 300, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "chats.sqlite3"
    path.write_bytes(content)
    error = refused(lambda: open_database(path))
    assert error.code == "store_damaged"
    assert str(path) in str(error)
    assert path.read_bytes() == content


def test_somebody_elses_database_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = tmp_path / "chats.sqlite3"
    with sqlite3.connect(path) as made:
        made.execute("CREATE TABLE chats (words)")
    made.close()
    error = refused(lambda: open_database(path))
    assert error.code == "store_damaged"
    assert "--data" in str(error)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "data"):
        error = refused(partial(Store, folder))
        assert error.code == "store_unwritable"
        assert str(folder) in str(error)
    (tmp_path / "data" / "chats.sqlite3").mkdir(parents=True)
    assert refused(lambda: Store(tmp_path / "data")).code == "store_unwritable"


def test_a_migration_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chats.sqlite3"
    open_database(path).close()
    broken = "CREATE TABLE more (a TEXT);\nINSERT INTO nowhere VALUES (1);\n"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    monkeypatch.setattr(schema, "VERSION", VERSION + 1)
    refused(lambda: open_database(path))
    monkeypatch.undo()
    connection = open_database(path)
    assert connection.execute("PRAGMA user_version").fetchone()[0] == VERSION
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert "more" not in tables
    connection.close()


def test_an_older_file_is_brought_up_with_its_chats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Store(tmp_path)
    turn = ask(old, "a-1", picture())
    old.close()
    newer = "ALTER TABLE chats ADD COLUMN colour TEXT NOT NULL DEFAULT 'none';\n"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, newer))
    monkeypatch.setattr(schema, "VERSION", VERSION + 1)
    store = Store(tmp_path)
    assert store.turn("a-1", turn.id) == turn
    assert store.chats("a-1")[0].id == turn.chat_id
    store.close()


def open_at_once(folder: Path) -> list[Store]:
    barrier, opened = threading.Barrier(4), []

    def make() -> None:
        barrier.wait()
        opened.append(Store(folder))

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return opened


def test_several_servers_may_make_the_same_folder_at_once(tmp_path: Path) -> None:
    for attempt in range(5):
        opened = open_at_once(tmp_path / str(attempt))
        assert len(opened) == 4
        for store in opened:
            store.close()
