"""Damaged rows: what can be read is served, what cannot is moved aside, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slow_engine import CARD

from instructblip.errors import InstructBlipError
from tests.tiny_picture import picture
from tests.webui.damaging import (
    OTHER,
    OWNER,
    QUESTIONS,
    Broken,
    chat_with_turns,
    open_file,
    set_aside,
    set_cell,
)
from webui import render
from webui.pictures import picture_id_of
from webui.store import Store

CELLS = {
    "turns": ("id", "chat_id", "parent_id", "question", "picture_id", "answer", "answer_ids", "qformer_text",
              "tokenizer", "finish", "error", "error_code", "error_values", "statistics", "parameters",
              "created", "server", "size"),
    "chats": ("id", "owner", "title", "leaf_id", "created", "updated"),
    "pictures": ("id", "mime", "width", "height", "created"),
    "picture_owners": ("picture_id", "owner", "name", "created", "size"),
}  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, b"", b"\xff\xfe\x00bytes", Broken(b"\xffno text\xfe"), 7, -1, 2**62, 1e300, float("inf"),
    "", "not JSON", "[", "[" * 5000, "null", "7", '"text"', "[]", "{}", "[1.5]", '["a"]', "[true]",
    "[-1]", "[99999999999999999999]", "[[1]]", '{"new_tokens": "many"}', '{"new_tokens": NaN}',
    '{"decode": Infinity}', '{"new_tokens": null}', '{"sampling": 3}', '{"sampling": {"num_beams": "x"}}',
    '{"name": "\\ud800"}', "\0", "猫", "0" * 32, "../../etc/passwd",
)  # fmt: skip


def page(store: Store, owner: str) -> str:
    """All that a visitor's page shows, chat by chat."""
    listed = store.chats(owner)
    shown = render.chat_list(listed, None, "", "en")
    assert store.chats(owner, "question") is not None
    for each in listed:
        chat = store.chat(owner, each.id)
        path = store.path(owner, chat.id)
        shown += render.history(path, store.versions(owner, chat.id), CARD, "zh", chat=chat)
    shown.encode()
    return shown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path / "data")
    chat_with_turns(store)
    chat_with_turns(store)
    chat_with_turns(store, OTHER)
    store.close()
    return tmp_path / "data"


def started(folder: Path) -> Store:
    store = Store(folder)
    store.recover()
    return store


OWN_ROWS = {"turns": 8, "chats": 2, "pictures": 4, "picture_owners": 4}
CELL = st.sampled_from([(table, name) for table, names in CELLS.items() for name in names])
VALUE = (
    st.sampled_from(VALUES) | st.text(max_size=20) | st.binary(max_size=20)
    | st.integers(-(2**63), 2**63 - 1)
)  # fmt: skip


@settings(deadline=None, max_examples=20)
@given(cells=st.lists(st.tuples(CELL, st.integers(0, 7), VALUE), min_size=1, max_size=4))
@example(cells=[(("turns", "parent_id"), 1, None)])
def test_whatever_stands_in_a_cell_the_rest_is_served(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[tuple[str, str], int, Any]]
) -> None:
    folder = tmp_path_factory.mktemp("cells") / "data"
    store = Store(folder)
    chat_with_turns(store)
    chat_with_turns(store)
    chat_with_turns(store, OTHER)
    for (table, column), number, value in cells:
        set_cell(folder, table, column, 1 + number % OWN_ROWS[table], value)
    page(store, OWNER)  # while the server runs
    store.close()
    again = started(folder)
    page(again, OWNER)
    theirs = page(again, OTHER)  # nothing was done to that
    assert all(question in theirs for question in QUESTIONS)
    for turn in [t for chat in again.chats(OWNER) for t in again.path(OWNER, chat.id)]:
        with contextlib.suppress(InstructBlipError):
            again.picture_bytes(OWNER, turn.picture_id)
    before = len(set_aside(folder))
    again.close()
    started(folder).close()
    assert len(set_aside(folder)) == before  # mended once
    assert (
        not sqlite3.connect(folder / "chats.sqlite3")
        .execute("PRAGMA foreign_key_check(turns)")
        .fetchall()
    )


@pytest.mark.parametrize("column", ["answer_ids", "error_values", "statistics", "parameters"])
@pytest.mark.parametrize("value", ["not JSON", None, b"\xff", "[[]]", "7"])
def test_a_turn_with_broken_json_keeps_its_words(folder: Path, column: str, value: Any) -> None:
    set_cell(folder, "turns", column, 2, value)
    store = started(folder)
    shown = page(store, OWNER)
    assert all(question in shown for question in QUESTIONS)
    assert shown.count("Answer 1.") == 2
    ((place, content),) = set_aside(folder)
    assert place == f"turns.{column}"
    kept = json.loads(content)
    assert kept[column] == ({"base64": "/w=="} if isinstance(value, bytes) else value)
    assert kept["question"] == "Question 1?"


def test_a_turn_without_its_question_says_so_in_its_place(folder: Path) -> None:
    set_cell(folder, "turns", "question", 2, None)
    store = started(folder)
    (chat,) = (c for c in store.chats(OWNER) if not store.path(OWNER, c.id)[1].readable)
    path = store.path(OWNER, chat.id)
    assert [turn.question for turn in path] == ["Question 0?", "", "Question 2?", "Question 3?"]
    for language, words in (("en", "could not be read"), ("zh", "无法读取")):
        shown = render.history(path, store.versions(OWNER, chat.id), CARD, language, chat=chat)
        assert words in shown
        assert shown.count('data-act="edit"') == 3  # nothing to ask again in the lost one


def test_a_lost_turn_leaves_a_place_for_those_below_it(folder: Path) -> None:
    db = open_file(folder)
    db.execute("DELETE FROM turns WHERE seq = 2")
    db.close()
    running = Store(folder)  # before any start has mended it
    assert "could not be read" in page(running, OWNER) or "无法读取" in page(running, OWNER)
    running.close()
    store = started(folder)
    paths = [store.path(OWNER, chat.id) for chat in store.chats(OWNER)]
    assert sorted([t.readable for t in path] for path in paths) == [[False, True, True], [True] * 4]


@pytest.mark.parametrize("loop", [(1, 1), (1, 4), (2, 4), (3, 3)])
def test_a_loop_of_parents_ends(folder: Path, loop: tuple[int, int]) -> None:
    db = open_file(folder)
    db.execute(
        "UPDATE turns SET parent_id = (SELECT id FROM turns WHERE seq = ?) WHERE seq = ?",
        loop[::-1],
    )
    db.close()
    running = Store(folder)
    page(running, OWNER)
    some = running.chats(OWNER)[-1].id
    running.set_leaf(OWNER, some, running.path(OWNER, some)[-1].id, descend=True)
    running.close()
    store = started(folder)
    found = {t.question for chat in store.chats(OWNER) for t in store.path(OWNER, chat.id)}
    assert found >= set(QUESTIONS)
    assert set_aside(folder)


def test_a_parent_or_leaf_of_another_chat_shows_nothing_of_it(folder: Path) -> None:
    db = open_file(folder)
    theirs = db.execute("SELECT id FROM turns WHERE seq = 12").fetchone()[0]
    db.execute("UPDATE turns SET parent_id = ?, question = 'Mine' WHERE seq = 3", (theirs,))
    db.execute("UPDATE turns SET question = 'secret' WHERE seq >= 9")
    db.execute("UPDATE chats SET leaf_id = ? WHERE rowid = 2", (theirs,))
    db.close()
    running = Store(folder)
    assert "secret" not in page(running, OWNER)
    running.close()
    store = started(folder)
    shown = page(store, OWNER)
    assert "secret" not in shown
    assert "Mine" in shown
    assert all(question in shown for question in QUESTIONS)  # the second chat shows its newest turn
    assert page(store, OTHER).count("secret") == 4


@pytest.mark.parametrize("value", [None, b"\xff", Broken(b"4\xff"), "another id"])
def test_a_chat_whose_id_is_damaged_keeps_its_turns(folder: Path, value: Any) -> None:
    set_cell(folder, "chats", "id", 2, value)
    store = started(folder)
    assert [len(store.path(OWNER, chat.id)) for chat in store.chats(OWNER)] == [4, 4]
    assert len(set_aside(folder)) in (1, 2)


@pytest.mark.parametrize("rowid", [1, 2, 4])
def test_a_turn_that_names_no_chat_is_in_that_of_its_neighbours(folder: Path, rowid: int) -> None:
    set_cell(folder, "turns", "chat_id", rowid, "nowhere")
    store = started(folder)
    assert [len(store.path(OWNER, chat.id)) for chat in store.chats(OWNER)] == [4, 4]


def test_a_turn_whose_chat_is_gone_is_shown_to_nobody_and_kept(folder: Path) -> None:
    db = open_file(folder)
    db.execute("DELETE FROM chats WHERE rowid = 1")
    db.close()
    store = started(folder)
    assert len(store.chats(OWNER)) == 1
    kept = [
        json.loads(content)["question"] for place, content in set_aside(folder) if place == "turns"
    ]
    assert kept == QUESTIONS


def test_the_start_says_what_it_mended(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    started(folder).close()
    assert caplog.text == ""
    set_cell(folder, "turns", "statistics", 1, "broken")
    started(folder).close()
    assert "1 damaged row(s)" in caplog.text
    assert "'damaged'" in caplog.text


# --- pictures --------------------------------------------------------------------------------------


def test_a_picture_whose_rows_are_lost_is_back_with_the_next_start(folder: Path) -> None:
    db = open_file(folder)
    db.execute("DELETE FROM picture_owners")
    db.execute("DELETE FROM pictures")
    db.close()
    store = started(folder)
    for chat in store.chats(OWNER):
        for turn in store.path(OWNER, chat.id):
            assert store.picture_bytes(OWNER, turn.picture_id)
            assert store.picture_mime(OWNER, turn.picture_id) == "image/png"


def test_a_cut_picture_is_moved_aside_and_comes_back_when_brought_again(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = picture((0, 30, 30))
    store = Store(folder)
    picture_id = store.path(OWNER, store.chats(OWNER)[0].id)[0].picture_id
    store.picture_path(OWNER, picture_id).write_bytes(b"cut")
    with pytest.raises(InstructBlipError):
        store.picture_bytes(OWNER, picture_id)
    store.close()
    store = started(folder)
    assert [p.read_bytes() for p in (folder / "damaged").rglob(picture_id)] == [b"cut"]
    assert "1 damaged picture(s)" in caplog.text
    page(store, OWNER)
    assert store.add_picture(OWNER, data) == picture_id
    assert picture_id_of(store.picture_bytes(OWNER, picture_id)) == picture_id


def test_a_picture_of_the_right_size_but_other_bytes_is_not_taken_for_it(folder: Path) -> None:
    store = Store(folder)
    picture_id = store.path(OWNER, store.chats(OWNER)[0].id)[0].picture_id
    path = store.picture_path(OWNER, picture_id)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(InstructBlipError):
        store.picture_bytes(OWNER, picture_id)
    store.add_picture(OWNER, picture((0, 30, 30)))
    assert store.picture_bytes(OWNER, picture_id)


def test_files_are_not_removed_for_want_of_rows_after_damage(folder: Path) -> None:
    stray = folder / "pictures" / "ab" / ("ab" * 16)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"whose?")
    set_cell(folder, "turns", "statistics", 1, "broken")
    started(folder).close()
    assert not stray.exists()
    assert [p.read_bytes() for p in (folder / "damaged").rglob(stray.name)] == [b"whose?"]
