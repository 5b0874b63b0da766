"""Several servers on one data folder: only dead ones' answers are taken for cut off."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.tiny_picture import picture
from webui.records import Turn
from webui.storage.servers import Servers
from webui.store import Store


def asked(store: Store, owner: str = "a-1") -> Turn:
    picture_id = store.add_picture(owner, picture())
    return store.add_turn(owner, store.new_chat(owner).id, None, "What?", picture_id)


def finish(store: Store, turn: Turn) -> None:
    store.finish_turn(
        turn.id, finish="stop", answer="All of it.", answer_ids=[1, 2], qformer_text="What?",
        tokenizer="w", statistics={},
    )  # fmt: skip


def serving(folder: Path) -> Store:
    store = Store(folder)
    store.recover()
    return store


def test_a_living_server_keeps_its_running_answers(tmp_path: Path) -> None:
    first = serving(tmp_path)
    turn = asked(first)
    first.write_answer(turn.id, "Half", [1])
    second = Store(tmp_path)
    assert second.recover() == 0
    assert second.turn("a-1", turn.id).finish is None
    first.write_answer(turn.id, "Half of", [1, 2])
    assert second.turn("a-1", turn.id).answer == "Half of"
    finish(first, turn)
    assert second.turn("a-1", turn.id).answer == "All of it."


def test_a_killed_servers_answers_are_interrupted_beside_a_living_ones(tmp_path: Path) -> None:
    first = serving(tmp_path)
    mine = asked(first)
    script = (
        "import os, sys; from pathlib import Path; from tests.webui.test_servers import *\n"
        "store = serving(Path(sys.argv[1])); turn = asked(store, 'a-2')\n"
        "store.write_answer(turn.id, 'Half', [1]); print(turn.id, flush=True); os._exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    theirs = done.stdout.strip()
    assert theirs, done.stderr
    third = Store(tmp_path)
    assert third.recover() == 1
    kept = third.turn("a-2", theirs)
    assert (kept.finish, kept.answer) == ("interrupted", "Half")
    assert third.turn("a-1", mine.id).finish is None
    # The two that live have a lock each; the dead one's is gone.
    assert len(list((tmp_path / "servers").glob("*.lock"))) == 2


def test_an_answer_that_was_taken_for_cut_off_is_saved_all_the_same(tmp_path: Path) -> None:
    first = serving(tmp_path)
    turn, other = asked(first), asked(first)
    for lock in (tmp_path / "servers").glob("*.lock"):
        lock.unlink()  # somebody tidied up, or the file system has no locks
    second = Store(tmp_path)
    assert second.recover() == 2
    first.write_answer(turn.id, "It goes on", [1, 2, 3])
    kept = second.turn("a-1", turn.id)
    assert (kept.finish, kept.answer) == (None, "It goes on")
    for each in (turn, other):
        finish(first, each)
        kept = second.turn("a-1", each.id)
        assert (kept.finish, kept.answer, kept.answer_ids) == ("stop", "All of it.", (1, 2))


def test_a_late_save_of_another_server_does_not_undo_an_end(tmp_path: Path) -> None:
    first, second = serving(tmp_path), serving(tmp_path)
    turn = asked(first)
    first.finish_turn(
        turn.id, finish="interrupted", answer="Cut", answer_ids=[1], qformer_text="", tokenizer="",
        statistics={},
    )  # fmt: skip
    for store in (first, second):
        store.write_answer(turn.id, "late", [9])
    assert second.turn("a-1", turn.id).answer == "Cut"


def test_what_has_no_server_is_left_while_another_server_lives(tmp_path: Path) -> None:
    beside = Store(tmp_path)  # a command, or version 1
    turn = asked(beside)
    first = Store(tmp_path)
    second = serving(tmp_path)
    assert second.turn("a-1", turn.id).finish == "interrupted"
    turn = asked(beside)
    assert first.recover() == 0
    second.close()
    assert first.recover() == 1


def test_a_start_leaves_what_another_server_is_just_making(tmp_path: Path) -> None:
    first = serving(tmp_path)
    chat = first.new_chat("a-1")
    half = tmp_path / "pictures" / "ab" / ".new-x"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"half")
    second = serving(tmp_path)
    assert second.chat("a-1", chat.id)
    assert half.exists()


def test_a_server_that_has_left_is_dead(tmp_path: Path) -> None:
    servers = Servers(tmp_path)
    one, two = servers.join(), servers.join()
    assert servers.alive(one.id)
    assert servers.others(one.id)
    two.leave()
    two.leave()
    assert not servers.alive(two.id)
    assert not servers.others(one.id)
    for forged in ("", "../../x", one.id.upper() + "0", "0" * 16):
        assert not servers.alive(forged)


def test_the_same_folder_may_be_joined_by_many_at_once(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from webui.storage.servers import Servers\n"
        "server = Servers(Path(sys.argv[1])).join(); print(server.id, flush=True); sys.stdin.read()"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    try:
        ids = [each.stdout.readline().strip() for each in started if each.stdout]
        servers = Servers(tmp_path)
        assert len(set(ids)) == 6
        assert all(servers.alive(each) for each in ids)
    finally:
        for each in started:
            each.kill()
            each.communicate()
    assert not any(servers.alive(each) for each in ids)
    servers.join().leave()
    assert not list((tmp_path / "servers").glob("*.lock"))
