"""An answer that fails ends in a message that can be read, and the server lives on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from slow_engine import SlowEngine
from talks import BrokenEngine, DeafStream, Talk, follow, look

from instructblip.engine.base import Delta, FinishReason, Phase
from instructblip.errors import DeviceError, InstructBlipError, OutOfMemory
from webui import runs as runs_module
from webui.i18n import LANGUAGES, coded_text
from webui.records import Turn
from webui.runs import Runs
from webui.store import Store


class CodeIsANumber(Exception):
    code = 500


class CodeIsAMethod(Exception):
    def code(self) -> int:
        return 14

    def values(self) -> Sequence[str]:
        return ()


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def check_readable(turn: Turn) -> None:
    """What the page shows of a failed turn, in both languages."""
    assert turn.finish == "error"
    for language in LANGUAGES:
        words = coded_text(language, turn.error_code, turn.error_values, turn.error)
        assert len(words) > 8, (turn.error_code, turn.error)
        assert "{" not in words
        assert "Traceback" not in words


def test_an_error_of_the_engine_is_told_and_the_next_question_answered(store: Store) -> None:
    async def scene() -> None:
        talk = Talk(store, Runs(SlowEngine(0.002, 2), store))
        beside = await talk.ask("count 30", owner="a-2")
        failed = await talk.answer("fail")
        check_readable(failed)
        assert failed.error_code == "out_of_memory"
        assert (await talk.answer("and now?", after=failed)).answer == "Turn 1: and now?"
        assert (await follow(beside))[-1].text.split()[-1] == "30"

    asyncio.run(scene())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OutOfMemory("no memory"),
        DeviceError("gone", code="not_finite"),
        InstructBlipError(
            "New kind of error. Ask again.", code="never_heard_of", key=1, language=2
        ),
        KeyError(),
        CodeIsANumber("Internal Server Error"),
        CodeIsAMethod("unavailable"),
        Unprintable(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "broken \ud83d"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_stream_that_breaks(store: Store, error: Exception) -> None:
    async def scene() -> None:
        engine = BrokenEngine(error)
        talk = Talk(store, Runs(engine, store))
        failed = await talk.answer("break")
        check_readable(failed)
        assert (failed.answer, failed.answer_ids) == ("Half", (7,))
        assert engine.broken[0].cancelled  # whatever is left of it need not go on
        assert len(talk.runs) == 0
        assert (await talk.answer("next", after=failed)).answer == "Turn 2: next"

    asyncio.run(scene())


@pytest.mark.parametrize("cause", [None, ValueError("odd")])
def test_an_end_that_is_an_error_with_and_without_a_cause(
    store: Store, cause: Exception | None
) -> None:
    async def scene() -> None:
        end = Delta("", Phase.DONE, finish=FinishReason.ERROR, error=cause)
        check_readable(await Talk(store, Runs(BrokenEngine(end), store)).answer("break"))

    asyncio.run(scene())


def test_a_stream_that_just_ends(store: Store) -> None:
    async def scene() -> None:
        failed = await Talk(store, Runs(BrokenEngine(None), store)).answer("break")
        check_readable(failed)
        assert failed.error_code == "silent_end"

    asyncio.run(scene())


def test_a_full_disk_ends_the_answer_and_stops_the_engine(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "SAVE_EVERY", 0.0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    async def scene() -> None:
        engine = SlowEngine(0.002, 2)
        talk = Talk(store, Runs(engine, store))
        with monkeypatch.context() as patch:
            patch.setattr(store, "write_answer", full)
            patch.setattr(store, "finish_turn", full)
            run = await talk.ask("count 500")
            last = (await follow(run))[-1]
        assert last.finish == "error"
        assert last.error is not None
        assert len(talk.runs) == 0
        while engine.running or engine.line:
            await asyncio.sleep(0.01)
        assert talk.kept(run).finish is None
        assert store.recover() == 1  # at the next start
        assert (await talk.answer("next")).finish == "stop"

    asyncio.run(scene())


# --- the end of the server -------------------------------------------------------------------------


def test_at_the_end_of_the_server_answers_are_stopped_and_kept(store: Store) -> None:
    async def scene() -> None:
        talk = Talk(store, Runs(SlowEngine(0.002, 1), store))
        running = await talk.ask("count 500")
        waiting = await talk.ask("count 500")
        page = asyncio.create_task(follow(waiting))
        await look(running, lambda now: bool(now.text))
        await talk.runs.close()
        assert len(talk.runs) == 0
        assert talk.kept(running).finish == talk.kept(waiting).finish == "cancelled"
        assert talk.kept(running).answer.startswith("1")
        assert (await page)[-1].finish == "cancelled"
        await talk.runs.close()

    asyncio.run(scene())


def test_an_engine_that_does_not_stop_does_not_hold_the_server(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs_module, "CLOSE_TIMEOUT", 0.05)

    async def scene() -> None:
        talk = Talk(store, Runs(BrokenEngine(None, DeafStream), store))
        run = await talk.ask("break")
        page = asyncio.create_task(follow(run))
        await look(run, lambda now: bool(now.text))
        await talk.runs.close()
        kept = talk.kept(run)
        assert (kept.finish, kept.answer, kept.answer_ids) == ("interrupted", "Half", (7,))
        assert (await page)[-1].finish == "interrupted"
        assert store.recover() == 0

    asyncio.run(scene())
