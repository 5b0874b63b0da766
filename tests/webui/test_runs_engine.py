"""Runs on the real engine with a tiny random model: its answers are those of the engine alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from talks import Talk, follow, look

from instructblip.checkpoints import load
from instructblip.engine.base import PastTurn, Request, SamplingParams
from instructblip.engine.local import LocalEngine
from instructblip.errors import PromptTooLong
from tests.tiny import make_checkpoint
from tests.tiny_picture import picture
from webui.records import Turn
from webui.runs import Run, Runs
from webui.store import Store

PARAMS = SamplingParams(max_new_tokens=8)
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder = make_checkpoint(tmp_path_factory.mktemp("tiny"))
    made = LocalEngine(load(str(folder), device="cpu", dtype="fp32"))
    yield made
    made.close()


@pytest.fixture
def talk(store: Store, engine: LocalEngine) -> Talk:
    return Talk(store, Runs(engine, store))


async def ask(talk: Talk, turn: Turn, owner: str = "a-1", params: SamplingParams = PARAMS) -> Run:
    return await talk.runs.start(owner, turn, sampling=params)


def alone(engine: LocalEngine, turn: Turn, history: tuple[PastTurn, ...] = ()) -> tuple[int, ...]:
    request = Request("alone " + turn.id, turn.question, turn.picture_id, history, PARAMS)
    return [*engine.submit(request)][-1].answer_ids


def test_two_turns_are_kept_as_the_engine_gave_them(talk: Talk, engine: LocalEngine) -> None:
    async def scene() -> tuple[Turn, Turn]:
        first = await ask(talk, talk.turn("what is in the picture"))
        seen = await follow(first)
        assert seen[-1].finish in ("stop", "length")
        assert seen[-1].text == talk.kept(first).answer
        second = await ask(talk, talk.turn("where is the cat", after=talk.kept(first)))
        await follow(second)
        return talk.kept(first), talk.kept(second)

    one, two = asyncio.run(scene())
    assert one.answer_ids == alone(engine, one)
    assert one.tokenizer == engine.card.tokenizer
    assert one.statistics["new_tokens"] == len(one.answer_ids)
    past = PastTurn(
        one.id, one.question, one.picture_id, one.answer_ids, one.answer, one.qformer_text, one.tokenizer
    )  # fmt: skip
    assert two.answer_ids == alone(engine, two, (past,))


def test_ten_at_once_answer_as_each_alone(talk: Talk, engine: LocalEngine) -> None:
    async def scene() -> list[Turn]:
        running = []
        for number in range(10):
            owner, data = f"a-{number}", picture(COLOURS[number % 3])
            turn = talk.turn(f"how many dogs {number}", owner=owner, data=data)
            running.append(await ask(talk, turn, owner))
        await asyncio.gather(*(follow(run) for run in running))
        return [talk.kept(run) for run in running]

    for turn in asyncio.run(scene()):
        assert turn.answer_ids == alone(engine, turn)


def test_stop_and_a_question_too_long_leave_the_engine_well(
    talk: Talk, engine: LocalEngine
) -> None:
    async def scene() -> Turn:
        run = await ask(talk, talk.turn("what is in the picture"), params=SamplingParams(150))
        await look(run)
        run.stop()
        await follow(run)
        assert talk.kept(run).finish in ("cancelled", "stop", "length")
        with pytest.raises(PromptTooLong):
            await ask(talk, talk.turn("what " * 2000, after=talk.kept(run)))
        assert talk.store.path("a-1", run.chat_id) == [talk.kept(run)]
        run = await ask(talk, talk.turn("is there a green star"))
        await follow(run)
        return talk.kept(run)

    turn = asyncio.run(scene())
    assert turn.answer_ids == alone(engine, turn)
