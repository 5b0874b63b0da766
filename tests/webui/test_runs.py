"""Answers from the question to the store: looking on, leaving, coming back, stopping, many at once."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
from slow_engine import SlowEngine
from talks import Talk, ended, follow, look

from instructblip.engine.base import Phase, SamplingParams
from instructblip.errors import BadParameter, Busy, EngineStopped, UnknownTurn
from tests.tiny_picture import picture
from webui import runs as runs_module
from webui.bounds import Client
from webui.runs import Run, Runs
from webui.sessions import Admission
from webui.store import Store


@pytest.fixture
def engine() -> SlowEngine:
    return SlowEngine(0.004, 2)


@pytest.fixture
def talk(store: Store, engine: SlowEngine) -> Talk:
    return Talk(store, Runs(engine, store, grace=20, admission=Admission(16)))


# --- one answer ------------------------------------------------------------------------------------


def test_an_answer_is_seen_as_it_grows_and_kept_as_it_ended(talk: Talk) -> None:
    async def scene() -> None:
        run = await talk.ask("What is on the left?")
        assert talk.runs.find(run.turn_id) is run
        assert talk.runs.running("a-1") == [run]
        seen = await follow(run)
        assert all(b.text.startswith(a.text) for a, b in pairwise(seen))
        assert [snapshot.finish for snapshot in seen[:-1]] == [None] * (len(seen) - 1)
        assert (seen[-1].text, seen[-1].finish) == ("Turn 1: What is on the left?", "stop")
        kept = talk.kept(run)
        assert (kept.answer, kept.finish, kept.error) == (seen[-1].text, "stop", "")
        assert kept.answer_ids == tuple(range(7))
        assert (kept.qformer_text, kept.tokenizer) == ("What is on the left?", "words")
        assert kept.statistics["new_tokens"] == 7
        assert kept.statistics["tokens_per_second"] > 0
        assert len(talk.runs) == 0
        assert talk.runs.find(run.turn_id) is None

    asyncio.run(scene())


def test_a_beam_search_is_seen_as_progress_and_comes_whole(talk: Talk) -> None:
    async def scene() -> None:
        talk.runs.engine.delay = 0.03
        beams = SamplingParams(max_new_tokens=20, num_beams=5)
        run = await talk.runs.start("a-1", talk.turn("count 20"), sampling=beams)
        searching = await look(run, lambda snapshot: snapshot.progress > 0.1)
        assert 0.1 < searching.progress < 1  # who comes back sees it where it is
        seen = await follow(run)
        shares = [snapshot.progress for snapshot in seen if not snapshot.text]
        assert len(shares) > 1
        assert shares == sorted(shares)
        assert shares[0] >= searching.progress
        whole = " ".join(map(str, range(1, 21)))
        assert {snapshot.text for snapshot in seen} == {"", whole}
        assert (talk.kept(run).answer, talk.kept(run).finish) == (whole, "stop")

        run = await talk.runs.start("a-1", talk.turn("count 200"), sampling=beams)
        await look(run, lambda snapshot: snapshot.progress > 0)
        run.stop()
        await follow(run)
        assert (talk.kept(run).answer, talk.kept(run).finish) == ("", "cancelled")

    asyncio.run(scene())


def test_who_waits_knows_when_it_is_due_once_an_answer_has_shown_how_long_they_take(
    talk: Talk, engine: SlowEngine
) -> None:
    async def scene() -> None:
        engine.slots, engine.delay = 1, 0.03
        first, second = [await talk.ask("count 20", owner=f"a-{n}") for n in range(2)]
        seen = await look(second, lambda snapshot: snapshot.place > 0)
        assert seen.due == 0
        await asyncio.gather(ended(first), ended(second))
        before = time.monotonic() + engine.seconds
        third, fourth = [await talk.ask("count 20", owner=f"a-{n}") for n in range(2)]
        seen = await look(fourth, lambda snapshot: snapshot.place > 0)
        assert before <= seen.due <= time.monotonic() + engine.seconds
        await asyncio.gather(ended(third), ended(fourth))
        assert fourth.snapshot.due == 0

    asyncio.run(scene())


def test_who_attaches_after_the_end_sees_the_end(talk: Talk) -> None:
    async def scene() -> None:
        run = await talk.ask("count 3")
        await follow(run)
        (only,) = await follow(run)
        assert (only.text, only.finish) == ("1 2 3", "stop")

    asyncio.run(scene())


def test_several_pages_look_on_and_one_that_leaves_ends_nothing(talk: Talk) -> None:
    async def scene() -> None:
        talk.runs.grace = 0
        run = await talk.ask("count 30")
        pages = [asyncio.create_task(follow(run)) for _ in range(2)]
        await look(run, lambda now: bool(now.text))
        for seen in await asyncio.gather(*pages):
            assert (seen[-1].text.split()[-1], seen[-1].finish) == ("30", "stop")

    asyncio.run(scene())


def test_a_quiet_time_repeats_the_present_state(store: Store) -> None:
    async def scene() -> None:
        talk = Talk(store, Runs(SlowEngine(1.0, 1), store))
        run = await talk.ask("count 1")
        looking = run.attach(heartbeat=0.01)
        assert await anext(looking) is await anext(looking)
        await looking.aclose()  # type: ignore[attr-defined]
        run.stop()
        await ended(run)

    asyncio.run(scene())


def test_text_is_saved_on_the_way(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "SAVE_EVERY", 0.0)

    async def scene() -> None:
        run = await talk.ask("count 40")
        while not (now := talk.kept(run)).answer:
            await asyncio.sleep(0.005)
        assert now.finish is None
        assert now.answer_ids == tuple(range(len(now.answer.split())))
        run.stop()
        await follow(run)

    asyncio.run(scene())


def test_the_history_is_the_path_above_with_the_pictures_of_each_turn(
    talk: Talk, engine: SlowEngine
) -> None:
    async def scene() -> None:
        first = await talk.answer("one")
        failed = await talk.answer("fail", after=first)
        second = await talk.answer("two", after=failed, data=picture((1, 2, 3)))
        assert second.answer == "Turn 2: two"  # a turn without an answer is no history
        again = await talk.answer("other", after=first)
        assert again.answer == "Turn 2: other"
        engine.pictures.clear()  # a new engine, or an emptied cache
        await talk.answer("three", after=second)
        assert engine.pictures == {first.picture_id, second.picture_id}

    asyncio.run(scene())


# --- leaving and coming back -----------------------------------------------------------------------


def test_an_answer_nobody_looks_at_ends_after_the_grace_period(talk: Talk) -> None:
    async def scene() -> None:
        talk.runs.grace = 0.05
        run = await talk.ask("count 500")
        left = await look(run, lambda now: bool(now.text))
        await ended(run)
        kept = talk.kept(run)
        assert kept.finish == "cancelled"
        assert kept.answer.startswith(left.text)
        assert not kept.answer.endswith("500")

    asyncio.run(scene())


def test_a_page_that_comes_back_in_time_sees_it_go_on(talk: Talk) -> None:
    async def scene() -> None:
        talk.runs.grace = 0.2
        run = await talk.ask("count 60")
        left = await look(run, lambda now: bool(now.text))
        seen = await follow(run)
        assert seen[0].text.startswith(left.text)
        assert (seen[-1].text.split()[-1], seen[-1].finish) == ("60", "stop")

    asyncio.run(scene())


def test_without_any_grace_a_page_still_has_time_to_come(talk: Talk) -> None:
    async def scene() -> None:
        talk.runs.grace = 0
        run = await talk.ask("count 30")
        await asyncio.sleep(0.05)  # the page attaches with an event of its own
        seen = await follow(run)
        assert seen[-1].finish == "stop"
        run = await talk.ask("count 500")
        await look(run)
        await ended(run)
        assert talk.kept(run).finish == "cancelled"

    asyncio.run(scene())


def test_a_page_that_never_comes_ends_it_too(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "FIRST_LOOK", 0.05)

    async def scene() -> None:
        talk.runs.grace = 0.01
        run = await talk.ask("count 500")
        await ended(run)
        assert talk.kept(run).finish == "cancelled"

    asyncio.run(scene())


# --- stop ------------------------------------------------------------------------------------------


def test_stop_before_the_first_token(talk: Talk, engine: SlowEngine) -> None:
    async def scene() -> None:
        engine.slots = 1
        ahead = await talk.ask("count 40")
        await look(ahead, lambda now: bool(now.text))
        run = await talk.ask("count 500")
        waiting = await look(run, lambda now: now.place > 0)
        assert (waiting.phase, waiting.place) == (Phase.WAITING.value, 1)
        run.stop()
        run.stop()
        assert [snapshot.finish for snapshot in await follow(run)][-1] == "cancelled"
        kept = talk.kept(run)
        assert (kept.finish, kept.answer, kept.answer_ids, kept.error) == ("cancelled", "", (), "")
        assert (await follow(ahead))[-1].finish == "stop"
        assert (await talk.answer("next", after=kept)).answer == "Turn 1: next"

    asyncio.run(scene())


def test_stop_in_the_middle_keeps_what_was_said(talk: Talk) -> None:
    async def scene() -> None:
        run = await talk.ask("count 500")
        seen = await look(run, lambda now: len(now.text.split()) > 3)
        run.stop()
        last = (await follow(run))[-1]
        kept = talk.kept(run)
        assert last.finish == kept.finish == "cancelled"
        assert kept.answer.startswith(seen.text)
        assert len(kept.answer_ids) == len(kept.answer.split())
        assert (await talk.answer("next", after=kept)).answer == "Turn 2: next"

    asyncio.run(scene())


def test_a_chat_deleted_in_mid_answer_ends_quietly(talk: Talk, engine: SlowEngine) -> None:
    async def scene() -> None:
        run = await talk.ask("count 500")
        await look(run, lambda now: bool(now.text))
        run.stop()
        talk.store.delete_chat("a-1", run.chat_id)
        assert (await follow(run))[-1].finish == "cancelled"
        assert len(talk.runs) == 0
        assert engine.running == 0

    asyncio.run(scene())


# --- many ------------------------------------------------------------------------------------------


def test_ten_at_once_each_with_its_own_answer(talk: Talk) -> None:
    async def scene() -> None:
        questions = {f"a-{number}": f"I am number {number}" for number in range(10)}
        running = [
            await talk.ask(words, owner=owner, data=picture((len(owner), int(owner[2:]), 9)))
            for owner, words in questions.items()
        ]
        assert len({run.turn_id for run in running}) == 10
        seen = await asyncio.gather(*(follow(run) for run in running))
        for run, snapshots in zip(running, seen, strict=True):
            wanted = f"Turn 1: {questions[run.owner]}"
            assert snapshots[-1].text == talk.kept(run).answer == wanted
            assert all(wanted.startswith(snapshot.text) for snapshot in snapshots)
            assert [chat.id for chat in talk.store.chats(run.owner)] == [run.chat_id]
        assert len(talk.runs) == 0

    asyncio.run(scene())


# --- what is refused leaves nothing ----------------------------------------------------------------


def left(talk: Talk, run: Run) -> int:
    return len(talk.store.path("a-1", run.chat_id))


def test_a_chat_answers_one_question_at_a_time(talk: Talk) -> None:
    async def scene() -> None:
        run = await talk.ask("count 500")
        with pytest.raises(Busy) as caught:
            talk.runs.admit(Client("a-1"), run.chat_id)
        assert caught.value.code == "busy_chat"
        with pytest.raises(Busy):
            await talk.ask("second", after=talk.kept(run))
        assert left(talk, run) == 1
        run.stop()
        await follow(run)
        assert (await talk.answer("second", after=talk.kept(run))).finish == "stop"

    asyncio.run(scene())


def test_an_owner_may_have_only_so_many(talk: Talk) -> None:
    async def scene() -> None:
        talk.runs.admission.per_owner = 2
        running = [await talk.ask("count 500") for _ in range(2)]
        with pytest.raises(Busy) as caught:
            await talk.ask("third")
        assert caught.value.code == "busy_owner"
        assert len(talk.store.chats("a-1")) == 2
        theirs = await talk.ask("count 3", owner="a-2")
        for run in running:
            run.stop()
        assert (await follow(theirs))[-1].finish == "stop"
        await asyncio.gather(*(follow(run) for run in running))
        assert (await talk.answer("third")).finish == "stop"

    asyncio.run(scene())


@pytest.mark.parametrize("error", [Busy("full"), EngineStopped("gone"), RuntimeError("odd")])
def test_what_the_engine_refuses_is_taken_back(
    talk: Talk, engine: SlowEngine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_: object) -> None:
        raise error

    async def scene() -> None:
        first = await talk.answer("one")
        with monkeypatch.context() as patch:
            patch.setattr(engine, "submit", refuse)
            with pytest.raises(type(error)):
                await talk.ask("two", after=first)
        assert talk.store.path("a-1", first.chat_id) == [first]
        assert (await talk.answer("two", after=first)).answer == "Turn 2: two"

    asyncio.run(scene())


def test_wrong_parameters_and_lost_pictures_are_taken_back(talk: Talk) -> None:
    async def scene() -> None:
        turn = talk.turn("one")
        with pytest.raises(BadParameter):
            await talk.runs.start("a-1", turn, sampling=SamplingParams(temperature=9))
        turn = talk.turn("two", chat=turn.chat_id, data=picture((1, 2, 3)))
        talk.store.picture_path("a-1", turn.picture_id).unlink()
        with pytest.raises(UnknownTurn):
            await talk.runs.start("a-1", turn)
        assert talk.store.path("a-1", turn.chat_id) == []
        assert (await talk.answer("three", chat=turn.chat_id)).finish == "stop"

    asyncio.run(scene())
