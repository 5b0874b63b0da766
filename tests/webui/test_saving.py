"""Answers that the store does not take are shown, and saved when it takes them."""

from __future__ import annotations

import asyncio

import pytest
from slow_engine import SlowEngine
from talks import Talk, follow

from instructblip.errors import InstructBlipError
from webui import runs as runs_module
from webui import saving as saving_module
from webui.runs import Runs
from webui.saving import Saving
from webui.store import Store

FULL = InstructBlipError("The disk is full.", code="store_full")


def full(*_: object, **__: object) -> None:
    raise FULL


@pytest.mark.parametrize("error", [FULL, OSError(28, "No space left on device")], ids=str)
def test_the_page_gets_the_whole_answer_and_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(runs_module, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(runs_module, "SAVE_AGAIN", 0.05)

    def fail(*_: object, **__: object) -> None:
        raise error

    async def scene() -> None:
        talk = Talk(store, Runs(SlowEngine(0.002, 2), store))
        with monkeypatch.context() as patch:
            patch.setattr(store, "write_answer", fail)
            patch.setattr(store, "finish_turn", fail)
            run = await talk.ask("count 30")
            last = (await follow(run))[-1]
            assert last.text.split()[-1] == "30"
            assert (last.finish, last.error.code) == ("error", "unsaved_full")
            assert talk.kept(run).finish is None
            shown = talk.runs.saving.shown(talk.kept(run))
            assert (shown.answer, shown.error_code) == (last.text, "unsaved_full")
            assert (shown.finish, len(shown.answer_ids)) == ("error", 30)
            await asyncio.sleep(0.2)  # tried again, in vain
            assert len(talk.runs.saving) == 1
            # The next question is asked about the answer that is shown.
            after = await talk.answer("and now?", after=talk.kept(run))
            assert after.finish is None
            assert talk.runs.saving.shown(after).answer == "Turn 2: and now?"
        while len(talk.runs.saving):
            await asyncio.sleep(0.01)
        kept = talk.kept(run)
        assert (kept.finish, kept.answer, kept.error_code) == ("stop", last.text, "")
        assert talk.runs.saving.shown(kept) == kept

    asyncio.run(scene())


def test_what_is_kept_is_saved_at_the_end_of_the_server(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        talk = Talk(store, Runs(SlowEngine(0.002, 2), store))
        with monkeypatch.context() as patch:
            patch.setattr(store, "finish_turn", full)
            run = await talk.ask("hello")
            await follow(run)
        await talk.runs.close()
        assert talk.kept(run).finish == "stop"

    asyncio.run(scene())


def test_what_is_kept_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving_module, "KEPT", 3)
    monkeypatch.setattr(store, "finish_turn", full)
    saving = Saving(store)
    for number in range(9):
        assert saving.whole(str(number), finish="stop").code == "unsaved_full"
    assert len(saving) == 3


def test_a_full_disk_does_not_fill_the_log(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saving = Saving(store)
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_answer", full)
        patch.setattr(store, "finish_turn", full)
        for number in range(100):
            saving.part(str(number), "words", ())
            saving.whole(str(number), finish="stop")
        saving.again()
    assert len(caplog.records) == 1
    assert "The disk is full" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_refusal_is_told_though_the_turn_cannot_be_taken_back(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> None:
        engine = SlowEngine(0.002, 2)
        talk = Talk(store, Runs(engine, store))

        def refuse(_: object) -> None:
            raise InstructBlipError("no", code="engine_dead")

        monkeypatch.setattr(engine, "submit", refuse)
        monkeypatch.setattr(store, "drop_turn", full)
        with pytest.raises(InstructBlipError) as told:
            await talk.ask("hello")
        assert told.value.code == "engine_dead"

    asyncio.run(scene())
