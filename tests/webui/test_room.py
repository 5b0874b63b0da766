"""What one visitor, and all together, may keep; who is refused first when the disk fills up."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from instructblip.errors import BadRequest, Busy
from tests.tiny_picture import picture
from webui.storage import room
from webui.storage.room import BLOCK, Limits
from webui.store import Store

MB = 1e6
Usage = namedtuple("Usage", "total used free")


def store_with(folder: Path, **limits: float) -> Store:
    return Store(folder, limits=Limits(**limits))


def colours(count: int) -> list[bytes]:
    return [picture((number % 256, number // 256, 7)) for number in range(count)]


def answered(store: Store, owner: str) -> str:
    """Ask and answer; the turn's id."""
    picture_id = store.add_picture(owner, picture((1, 2, 3)))
    turn = store.add_turn(owner, store.new_chat(owner).id, None, "What?", picture_id)
    store.finish_turn(
        turn.id, finish="stop", answer="Yes.", answer_ids=[1], qformer_text="", tokenizer="",
        statistics={},
    )  # fmt: skip
    return turn.id


def kept(store: Store, owner: str, data: list[bytes]) -> int:
    """How many pictures are taken before one is refused."""
    for number, each in enumerate(data):
        try:
            store.add_picture(owner, each)
        except (BadRequest, Busy):
            return number
    return len(data)


def test_an_owner_keeps_so_much_and_a_newcomer_a_tenth_of_it(tmp_path: Path) -> None:
    store = store_with(tmp_path, owner=100 * BLOCK)
    assert kept(store, "a-new", colours(30)) == 10
    answered(store, "a-old")
    assert 95 <= kept(store, "a-old", colours(120)) < 100
    with pytest.raises(BadRequest) as caught:
        store.add_picture("a-old", picture((9, 9, 9)))
    assert caught.value.code == "storage_owner"
    assert "Delete chats" in str(caught.value)
    assert kept(store, "a-other", colours(3)) == 3  # others are not concerned


def test_what_is_there_already_is_taken_and_what_is_deleted_makes_room(tmp_path: Path) -> None:
    store = store_with(tmp_path, owner=20 * BLOCK)
    turn = store.turn("a-1", answered(store, "a-1"))
    more = colours(19)
    assert kept(store, "a-1", more) == 18
    assert store.add_picture("a-1", more[0])
    store.delete_chat("a-1", turn.chat_id)  # a newcomer again, with pictures nobody asked about
    assert kept(store, "a-1", [picture((5, 5, 5))]) == 0
    assert store.forget_unused(-1) == 18
    assert kept(store, "a-1", more) == 2


def test_questions_count_too(tmp_path: Path) -> None:
    store = store_with(tmp_path, owner=1 * MB)
    turn = store.turn("a-1", answered(store, "a-1"))

    def ask() -> None:
        store.add_turn("a-1", turn.chat_id, turn.id, "x" * 50_000, turn.picture_id)

    for _ in range(19):
        ask()
    with pytest.raises(BadRequest) as caught:
        ask()
    assert caught.value.code == "storage_owner"


def test_newcomers_leave_a_part_of_the_whole_to_those_who_are_known(tmp_path: Path) -> None:
    """An attacker with a new cookie for each picture."""
    store = store_with(tmp_path, total=400_000)
    answered(store, "a-old")
    pictures = colours(200)
    taken = sum(kept(store, f"a-{number}", [each]) for number, each in enumerate(pictures))
    assert 0 < taken < 100
    with pytest.raises(Busy) as caught:
        store.add_picture("a-one-more", picture((1, 1, 1)))
    assert caught.value.code == "storage_all"
    assert kept(store, "a-old", colours(10)) == 10


def test_near_the_end_of_the_disk_newcomers_are_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_with(tmp_path, reserve=200 * MB)
    turn = store.turn("a-1", answered(store, "a-1"))
    free = 1e9

    def usage(_: object) -> Usage:
        return Usage(2e9, 1e9, free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    first, second, third, fourth = colours(4)
    assert kept(store, "a-new", [first]) == 1
    free = 190 * MB
    assert kept(store, "a-new", [second]) == 0
    assert kept(store, "a-1", [second]) == 1
    free = 90 * MB
    assert kept(store, "a-1", [third]) == 0
    assert store.add_turn("a-1", turn.chat_id, turn.id, "And?", turn.picture_id)
    free = 20 * MB
    with pytest.raises(Busy):
        store.add_turn("a-1", turn.chat_id, turn.id, "And?", turn.picture_id)
    free = 1e9
    assert kept(store, "a-1", [fourth]) == 1


def test_what_nobody_asks_about_makes_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_with(tmp_path, owner=100 * BLOCK)
    assert kept(store, "a-1", colours(20)) == 10
    store._db.execute("UPDATE picture_owners SET created = created - 4000")
    store._swept -= 100
    assert store.add_picture("a-1", picture((9, 9, 9)))
    assert len([p for p in (tmp_path / "pictures").rglob("*") if p.is_file()]) == 1


def test_chats_and_turns_have_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from webui.storage import chats, turns

    monkeypatch.setattr(chats, "MAX_CHATS", 3)
    monkeypatch.setattr(turns, "MAX_TURNS", 4)
    store = store_with(tmp_path)
    answered(store, "a-1")
    for _ in range(2):
        store.new_chat("a-1")
    with pytest.raises(BadRequest) as caught:
        store.new_chat("a-1")
    assert caught.value.code == "chats_full"
    store._db.execute("UPDATE chats SET created = created - 100")
    chat = store.new_chat("a-1")  # in the place of the empty ones
    picture_id = store.add_picture("a-1", picture((1, 2, 3)))
    for _ in range(4):
        store.add_turn("a-1", chat.id, None, "What?", picture_id)
    with pytest.raises(BadRequest) as caught:
        store.add_turn("a-1", chat.id, None, "What?", picture_id)
    assert caught.value.code == "chat_full"


def test_sums_are_not_made_for_each_picture(tmp_path: Path) -> None:
    asked = 0

    def held(_: str | None) -> int:
        nonlocal asked
        asked += 1
        return 0

    made = room.Room(tmp_path, Limits(owner=1 * MB, total=10 * MB), held)
    for _ in range(50):
        made.check_picture("a-1", 1000, known=True)
    assert asked == 2  # the owner's, and everybody's
