"""Whatever breaks inside, the request that broke it ends with a clear error, and the rest go on."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from instructblip.engine.base import Delta, FinishReason, Request, SamplingParams
from instructblip.engine.local import LocalEngine
from instructblip.errors import Busy, OutOfMemory
from tests.tiny import picture

Make = Callable[..., LocalEngine]
QUESTIONS = ("what is it", "where is the red cat", "how many dogs", "a blue circle")
SHORT = SamplingParams(max_new_tokens=10)


def ask_all(engine: LocalEngine, questions=QUESTIONS, sampling=SHORT) -> list:
    engine.register_picture("p", picture())
    streams = [engine.submit(Request(q, q, "p", sampling=sampling)) for q in questions]
    return [list(s)[-1] for s in streams]


@pytest.fixture
def want(new_engine: Make) -> list[tuple[int, ...]]:
    return [last.answer_ids for last in ask_all(new_engine())]


def faulty(monkeypatch: pytest.MonkeyPatch, model, fault: Callable[[torch.Tensor, int], None]):
    """Call ``fault`` with the embeddings and the number of the call before each forward."""
    run, calls = model.run, [0]

    def broken(embeds: torch.Tensor, *args: object) -> torch.Tensor:
        calls[0] += 1
        fault(embeds, calls[0])
        return run(embeds, *args)

    monkeypatch.setattr(model, "run", broken)


def test_out_of_memory_in_a_batch_splits_it_and_nobody_notices(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch, want
) -> None:
    def fault(embeds: torch.Tensor, call: int) -> None:
        if embeds.shape[1] > 2:  # a forward of more than two tokens
            raise torch.OutOfMemoryError("no memory")

    engine = new_engine()
    engine.register_picture("p", picture())
    ask_all(engine)  # prompts are held now; only their last positions are computed again
    faulty(monkeypatch, tiny_model, fault)
    assert [last.answer_ids for last in ask_all(engine)] == want
    assert engine.statistics()["out_of_memory"] > 0


def test_out_of_memory_for_good_ends_with_a_clear_error_and_the_engine_lives(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch, want
) -> None:
    engine = new_engine()
    with monkeypatch.context() as patch:
        faulty(patch, tiny_model, lambda e, n: (_ for _ in ()).throw(torch.OutOfMemoryError()))
        for last in ask_all(engine):
            assert last.finish is FinishReason.ERROR
            assert isinstance(last.error, OutOfMemory)
    assert [last.answer_ids for last in ask_all(engine)] == want


def test_a_kernel_that_breaks_on_one_request_ends_that_one_only(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch, want
) -> None:
    engine = new_engine()
    embed = tiny_model.embed

    def mark(ids: list[int]) -> torch.Tensor:
        return embed(ids)

    poison = set(tiny_model.tokenizer.encode(QUESTIONS[1]))
    bad = embed(sorted(poison - set(tiny_model.tokenizer.encode(QUESTIONS[0]))))

    def fault(embeds: torch.Tensor, call: int) -> None:
        if (embeds[0][:, None] == bad[None]).all(-1).any():
            raise RuntimeError("kernel broke")

    monkeypatch.setattr(tiny_model, "embed", mark)
    faulty(monkeypatch, tiny_model, fault)
    ends = ask_all(engine)
    assert ends[1].finish is FinishReason.ERROR
    assert "kernel broke" in str(ends[1].error)
    good = [n for n in (0, 2, 3) if not poison & set(tiny_model.tokenizer.encode(QUESTIONS[n]))]
    assert ends[0].answer_ids == want[0]
    assert all(ends[n].finish is not FinishReason.ERROR for n in good)


@pytest.mark.parametrize("good", range(8))
def test_whatever_the_text_does_a_last_delta_comes(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    """Ids that cannot be decoded: two calls for each token, and two for the rest that is held back."""
    calls, real = itertools.count(), tiny_model.tokenizer.decode

    def decode(ids):
        if next(calls) >= good:
            raise ValueError("no such id")
        return real(ids)

    engine = new_engine()
    engine.register_picture("p", picture())
    params = SamplingParams(max_new_tokens=3, min_new_tokens=3)
    with monkeypatch.context() as broken:
        broken.setattr(tiny_model.tokenizer, "decode", decode)
        stream = engine.submit(Request("r", QUESTIONS[0], "p", sampling=params))
        reader: list[list[Delta]] = []
        thread = threading.Thread(target=lambda: reader.append(list(stream)), daemon=True)
        thread.start()
        thread.join(90)
    assert reader, "the stream never ended"
    last = reader[0][-1]
    assert (last.finish, last.error.code) == (FinishReason.ERROR, "internal")
    assert (engine.statistics()["failed"], engine.statistics()["running"]) == (1, 0)
    again = list(engine.submit(Request("r", QUESTIONS[0], "p", sampling=params)))[-1]
    assert again.finish is FinishReason.LENGTH


def test_a_failure_while_tokens_are_chosen_ends_that_request_only(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch, want
) -> None:
    from instructblip.engine.answer import Answer

    advance, end, ended = Answer.advance, Answer.end, []

    def broken(self: Answer, *args: object):
        # In the very step that ended the first request.
        if self.request.request_id == QUESTIONS[2] and ended:
            raise ValueError("no token")
        return advance(self, *args)

    def note(self: Answer, *args: object) -> None:
        ended.append(self.request.request_id)
        end(self, *args)

    monkeypatch.setattr(Answer, "advance", broken)
    monkeypatch.setattr(Answer, "end", note)
    engine = new_engine()
    engine.register_picture("p", picture())
    streams = [
        engine.submit(Request(q, q, "p", sampling=SamplingParams(max_new_tokens=limit)))
        for q, limit in zip(QUESTIONS, (5, 10, 10, 10), strict=True)
    ]
    ends = [list(stream)[-1] for stream in streams]
    assert ended[0] == QUESTIONS[0]
    assert ends[2].finish is FinishReason.ERROR
    assert "no token" in str(ends[2].error)
    assert [ends[n].answer_ids for n in (0, 1, 3)] == [want[0][:5], want[1], want[3]]
    assert "restarts" not in engine.statistics()


def test_features_that_are_no_numbers_fail_by_name_and_spoil_nobody_later(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch, want
) -> None:
    engine = new_engine(slots=4)
    query = tiny_model.query

    def poisoned(features: object, text: str) -> torch.Tensor:
        tokens = query(features, text)
        return tokens * float("nan") if text == QUESTIONS[1] else tokens

    with monkeypatch.context() as patch:
        patch.setattr(tiny_model, "query", poisoned)
        ends = ask_all(engine)
    assert [e.error.code if e.error else None for e in ends] == [None, "not_finite", None, None]
    assert [ends[n].answer_ids for n in (0, 2, 3)] == [want[n] for n in (0, 2, 3)]
    engine._pictures.clear_tensors()
    for _ in range(2):  # every slot is used again
        assert [last.answer_ids for last in ask_all(engine)] == want


def test_a_failure_of_the_loop_itself_costs_a_restart_and_no_answer(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch, want
) -> None:
    engine = new_engine()
    admit, calls = engine._scheduler._step, [0]

    def broken() -> None:
        calls[0] += 1
        if calls[0] == 5:
            raise SystemExit("the thread dies")
        admit()

    monkeypatch.setattr(engine._scheduler, "_step", broken)
    assert [last.answer_ids for last in ask_all(engine)] == want
    assert engine.statistics()["restarts"] == 1


def test_who_meets_two_failures_of_the_loop_is_told_to_ask_again(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch, want
) -> None:
    engine = new_engine()
    step, calls = engine._scheduler._step, [0]

    def broken() -> None:
        calls[0] += 1
        if calls[0] in (3, 6):
            raise KeyError("a bug")
        step()

    monkeypatch.setattr(engine._scheduler, "_step", broken)
    ends = ask_all(engine, QUESTIONS[:1])
    assert ends[0].error.code == "engine_restarted"
    assert [last.answer_ids for last in ask_all(engine)] == want


def test_ten_thousand_at_once_are_refused_or_answered(new_engine: Make, want) -> None:
    engine = new_engine(max_waiting=20)
    engine.register_picture("p", picture())

    def submit(n: int):
        try:
            return engine.submit(Request(str(n), QUESTIONS[n % 4], "p", sampling=SHORT))
        except Busy as busy:
            return busy

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(submit, range(10_000)))
    refused = [r for r in results if isinstance(r, Busy)]
    answered = [(n, r) for n, r in enumerate(results) if not isinstance(r, Busy)]
    assert refused
    assert all(list(stream)[-1].answer_ids == want[n % 4] for n, stream in answered)
    assert engine.statistics()["waiting"] == 0
