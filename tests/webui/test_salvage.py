"""Damaged pages of the chats' file: what can be read goes to a new one, the damaged one is kept."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from instructblip.errors import InstructBlipError
from tests.tiny_picture import picture
from webui.storage.servers import Servers
from webui.store import Store

PAGE = 4096
CHATS, LENGTH = 12, 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of many pages: every table and index has several."""
    folder = tmp_path_factory.mktemp("whole")
    store = Store(folder)
    for number in range(CHATS):
        owner = f"a-{number % 3}"
        picture_id = store.add_picture(owner, picture((number, 3, 4)))
        chat, parent = store.new_chat(owner), None
        for at in range(LENGTH):
            parent = store.add_turn(owner, chat.id, parent, f"q{at} " + "x" * 300, picture_id).id
            store.finish_turn(
                parent, finish="stop", answer="y" * 500, answer_ids=range(50), qformer_text="q",
                tokenizer="w", statistics={"new_tokens": 50.0},
            )  # fmt: skip
    store.close()
    return (folder / "chats.sqlite3").read_bytes()


def pages_of(whole: bytes, tmp_path: Path, name: str) -> list[int]:
    """The pages of a table or index, its root among them; from the file's own structure."""
    path = tmp_path / "look.sqlite3"
    path.write_bytes(whole)
    db = sqlite3.connect(path)
    root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
    db.close()
    return [root, *below(whole, root)]


def below(whole: bytes, page: int) -> list[int]:
    start = (page - 1) * PAGE
    if whole[start] not in (2, 5):  # a leaf
        return []
    count = int.from_bytes(whole[start + 3 : start + 5], "big")
    cells = [
        int.from_bytes(whole[start + 12 + 2 * i : start + 14 + 2 * i], "big") for i in range(count)
    ]
    found = [int.from_bytes(whole[start + at : start + at + 4], "big") for at in cells]
    found.append(int.from_bytes(whole[start + 8 : start + 12], "big"))
    return found


def damage(folder: Path, whole: bytes, page: int) -> bytes:
    folder.mkdir(exist_ok=True)
    data = bytearray(whole)
    data[(page - 1) * PAGE : page * PAGE] = random.Random(page).randbytes(PAGE)
    (folder / "chats.sqlite3").write_bytes(data)
    return bytes(data)


def readable(store: Store) -> int:
    owners = [f"a-{number}" for number in range(3)]
    return sum(
        turn.readable
        for owner in owners
        for chat in store.chats(owner)
        for turn in store.path(owner, chat.id)
    )


def test_a_damaged_page_of_turns_takes_only_its_own_with_it(
    tmp_path: Path, whole: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    _, *leaves = pages_of(whole, tmp_path, "turns")
    assert len(leaves) > 5
    broken = damage(tmp_path / "data", whole, leaves[2])
    store = Store(tmp_path / "data")
    store.recover()
    assert "was damaged" in caplog.text
    assert CHATS * LENGTH - 6 <= readable(store) < CHATS * LENGTH
    assert sum(len(store.chats(f"a-{n}")) for n in range(3)) == CHATS
    (kept,) = (tmp_path / "data" / "damaged").rglob("chats.sqlite3")
    assert kept.read_bytes() == broken
    assert str(kept.parent) in caplog.text
    assert kept.stat().st_mode & 0o777 == 0o600
    store.close()
    caplog.clear()
    again = Store(tmp_path / "data")
    assert again.recover() == 0
    assert "was damaged" not in caplog.text  # it is whole now


@pytest.mark.parametrize("index", ["turns_of_chat", "turns_of_parent", "chats_of_owner"])
def test_a_damaged_index_loses_nothing(tmp_path: Path, whole: bytes, index: str) -> None:
    damage(tmp_path / "data", whole, pages_of(whole, tmp_path, index)[0])
    store = Store(tmp_path / "data")
    store.recover()
    assert readable(store) == CHATS * LENGTH


@pytest.mark.parametrize("table", ["turns", "pictures", "picture_owners", "damaged"])
def test_a_table_whose_root_is_damaged_does_not_stop_the_server(
    tmp_path: Path, whole: bytes, table: str
) -> None:
    damage(tmp_path / "data", whole, pages_of(whole, tmp_path, table)[0])
    store = Store(tmp_path / "data")
    store.recover()
    if table != "turns":
        assert readable(store) == CHATS * LENGTH
    chat = store.new_chat("a-0")
    picture_id = store.add_picture("a-0", picture())
    turn = store.add_turn("a-0", chat.id, None, "new", picture_id)
    assert store.path("a-0", chat.id) == [turn]


def test_a_file_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chats.sqlite3").write_bytes(whole[: len(whole) * 3 // 4 + 100])
    store = Store(tmp_path / "data")
    store.recover()
    assert 0 < readable(store) <= CHATS * LENGTH


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bytes_anywhere_never_end_in_a_traceback(
    tmp_path: Path, whole: bytes, seed: int
) -> None:
    dice = random.Random(seed)
    data = bytearray(whole)
    for _ in range(30):
        data[dice.randrange(100, len(data))] = dice.randrange(256)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "chats.sqlite3").write_bytes(data)
    try:
        store = Store(tmp_path / "data")
    except InstructBlipError as caught:  # the list of tables itself
        error: InstructBlipError | None = caught
    else:
        error = None
        store.recover()
        readable(store)
    assert error is None or error.code == "store_damaged"
    if error is not None:
        assert (tmp_path / "data" / "chats.sqlite3").read_bytes() == data


def test_beside_a_living_server_nothing_is_replaced(tmp_path: Path, whole: bytes) -> None:
    broken = damage(tmp_path, whole, pages_of(whole, tmp_path, "turns")[1])
    server = Servers(tmp_path).join()
    with pytest.raises(InstructBlipError) as caught:
        Store(tmp_path)
    assert caught.value.code == "store_damaged"
    assert "another server" in str(caught.value)
    assert (tmp_path / "chats.sqlite3").read_bytes() == broken
    server.leave()
    Store(tmp_path).close()
