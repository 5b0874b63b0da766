"""The engine over a tiny model: answers, reuse, stopping, waiting, failing."""

import asyncio
import itertools
import pickle
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import torch

from instructblip.engine.base import Delta, FinishReason, PastTurn, Phase, Request, SamplingParams
from instructblip.engine.local import LocalEngine
from instructblip.engine.stream import LocalStream
from instructblip.errors import Busy, EngineStopped, InstructBlipError, PromptTooLong, UnknownTurn
from instructblip.model import InstructBlip
from tests.tiny import picture

Make = Callable[..., LocalEngine]
SHORT = SamplingParams(max_new_tokens=12)
PATIENCE = 90.0  # seconds, however busy the machine
MANY = 1000  # forwards: more than all answers of a test take


def ask(
    engine: LocalEngine, question: str, *history: PastTurn, layout: str = "append", **kwargs: object
) -> list[Delta]:
    picture_id = str(kwargs.pop("picture_id", "p"))
    if not engine.has_picture(picture_id):
        engine.register_picture(picture_id, picture())
    sampling = kwargs.pop("sampling", SHORT)
    request = Request("r", question, picture_id, history, sampling, layout=layout, **kwargs)
    return list(engine.submit(request))


def turn(question: str, last: Delta, picture_id: str = "p") -> PastTurn:
    return PastTurn("t", question, picture_id, last.answer_ids, "", last.qformer_text)


def held(model: InstructBlip, monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Every forward waits for a permit: what happens meanwhile does not hang on a machine's speed."""
    run, permits = model.run, threading.Semaphore(0)

    def wait(*args: object) -> torch.Tensor:
        assert permits.acquire(timeout=PATIENCE)
        return run(*args)

    monkeypatch.setattr(model, "run", wait)
    return permits


def test_greedy_tokens_equal_transformers_generate(tiny_model, new_engine: Make) -> None:
    """transformers' own generate over the same embeddings is the reference."""
    from instructblip.images import open_upright

    last = ask(new_engine(), "what is in the picture")[-1]
    m = tiny_model
    tokens = m.query(m.encode_image(open_upright(picture())), "what is in the picture")
    embeds = torch.cat([tokens, m.embed([2, *m.tokenizer.encode("what is in the picture")])])
    reference = m.weights.language_model.generate(
        inputs_embeds=embeds[None], max_new_tokens=12, do_sample=False, pad_token_id=0,
        suppress_tokens=list(range(m.tokenizer.size, m.text_config.vocab_size)),
    )[0]  # fmt: skip
    assert list(last.answer_ids) == reference.tolist()


@pytest.mark.parametrize("layout", ["keep", "append", "refresh"])
def test_cached_turns_answer_as_from_scratch(layout: str, new_engine: Make) -> None:
    warm, history, reused = new_engine(), [], []
    for question in ("what is it", "where is the red cat", "how many dogs"):
        last = ask(warm, question, *history, layout=layout)[-1]
        cold = ask(new_engine(), question, *history, layout=layout)[-1]
        assert last.answer_ids == cold.answer_ids
        assert cold.statistics.reused_tokens == 0
        reused.append(last.statistics.reused_tokens)
        history.append(turn(question, last))
    if layout != "refresh":
        assert 0 < reused[1] < reused[2]


def test_a_branch_and_a_retry_are_right_and_reuse_the_common_prefix(new_engine: Make) -> None:
    engine = new_engine()
    first = turn("what is it", ask(engine, "what is it")[-1])
    ask(engine, "how many dogs", first)
    edited = ask(engine, "where is the cat", first)[-1]
    assert edited.statistics.reused_tokens > 5
    assert edited.answer_ids == ask(new_engine(), "where is the cat", first)[-1].answer_ids


def test_a_second_picture_is_not_mixed_with_the_first(new_engine: Make) -> None:
    engine = new_engine()
    engine.register_picture("green", picture((10, 200, 40), (25, 60)))
    first = ask(engine, "what is it")[-1]
    second = ask(engine, "what is it", turn("what is it", first), picture_id="green")[-1]
    fresh = new_engine()
    fresh.register_picture("green", picture((10, 200, 40), (25, 60)))
    fresh.register_picture("p", picture())
    again = ask(fresh, "what is it", turn("what is it", first), picture_id="green")[-1]
    assert second.answer_ids == again.answer_ids


def test_deltas_tell_phases_text_and_statistics(new_engine: Make) -> None:
    deltas = ask(new_engine(), "what is it")
    phases = [d.phase for d in deltas]
    assert phases == sorted(phases, key=list(Phase).index)
    assert {Phase.ENCODING, Phase.PREFILL, Phase.DECODE, Phase.DONE} <= set(phases)
    last = deltas[-1]
    assert tuple(i for d in deltas for i in d.token_ids) == last.answer_ids
    assert last.finish in (FinishReason.LENGTH, FinishReason.STOP)
    assert last.statistics.new_tokens == len(last.answer_ids)
    assert last.statistics.first_token > 0
    assert pickle.loads(pickle.dumps(last)) == last


def test_a_stop_string_ends_the_answer_and_is_not_shown(new_engine: Make) -> None:
    whole = "".join(d.text for d in ask(new_engine(), "what is it"))
    stop = whole[3:5]
    deltas = ask(new_engine(), "what is it", sampling=replace(SHORT, stop=(stop,)))
    assert "".join(d.text for d in deltas) == whole[: whole.index(stop)]
    assert deltas[-1].finish is FinishReason.STOP


def test_cancel_stops_within_one_unit_and_the_next_answer_is_right(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = ask(new_engine(), "how many dogs")[-1].answer_ids
    engine = new_engine()
    engine.register_picture("p", picture())
    asked: queue.Queue[LocalStream] = queue.Queue()
    run, calls = tiny_model.run, itertools.count(1)

    def cancel_in_the_fifth(*args: object) -> torch.Tensor:
        if (call := next(calls)) == 5:
            asked.get().cancel()
        assert call <= 5
        return run(*args)

    with monkeypatch.context() as patch:
        patch.setattr(tiny_model, "run", cancel_in_the_fifth)
        long = SamplingParams(max_new_tokens=99, min_new_tokens=99)
        asked.put(stream := engine.submit(Request("r", "what is it", "p", sampling=long)))
        last = list(stream)[-1]
    assert last.finish is FinishReason.CANCELLED
    assert 3 <= len(last.answer_ids) <= 5
    assert next(calls) == 6
    assert ask(engine, "how many dogs")[-1].answer_ids == want


@pytest.mark.parametrize("static", [False, True])
def test_a_lone_prefill_is_stopped_in_its_midst_and_leaves_nothing_behind(
    tiny_model, new_engine: Make, static: bool
) -> None:
    want = ask(new_engine(), "how many dogs")[-1].answer_ids
    engine = new_engine(static=static)
    engine.register_picture("p", picture())
    asked: queue.Queue[LocalStream] = queue.Queue()
    ran: list[int] = []

    def note(number: int, *_: object) -> None:
        ran.append(number)
        if len(ran) == 1:
            asked.get().cancel()

    layers = tiny_model.weights.language_model.model.layers
    hooks = [layer.register_forward_hook(partial(note, n)) for n, layer in enumerate(layers)]
    stream = engine.submit(Request("r", "what is it " * 30, "p", sampling=SHORT))
    asked.put(stream)
    last = list(stream)[-1]
    for hook in hooks:
        hook.remove()
    assert (last.finish, last.answer_ids) == (FinishReason.CANCELLED, ())
    assert ran == [0]  # of all layers
    assert engine.statistics()["units"].get("prefill", 0) == 0
    assert ask(engine, "how many dogs")[-1].answer_ids == want


def test_a_prefill_that_is_alone_is_one_unit_of_work(new_engine: Make) -> None:
    engine = new_engine()
    last = ask(engine, "what is it " * 30)[-1]
    assert last.statistics.prompt_tokens > 150
    assert engine.statistics()["units"]["prefill"] == 1


def test_closing_does_not_wait_for_a_lone_prefill(tiny_model, new_engine: Make) -> None:
    engine = new_engine()
    engine.register_picture("p", picture())
    asked: queue.Queue[LocalStream] = queue.Queue()
    began, ran = threading.Event(), []

    def wait_for_the_end(*_: object) -> None:
        ran.append(began.set())
        if len(ran) == 1:
            assert asked.get().cancelled.wait(PATIENCE)

    layers = tiny_model.weights.language_model.model.layers
    hooks = [layer.register_forward_hook(wait_for_the_end) for layer in layers]
    stream = engine.submit(Request("r", "what is it " * 30, "p", sampling=SHORT))
    asked.put(stream)
    assert began.wait(PATIENCE)
    engine.close()
    assert list(stream)[-1].finish is FinishReason.CANCELLED
    for hook in hooks:
        hook.remove()
    assert len(ran) == 1  # of all layers


def test_those_who_wait_see_their_place_move_and_get_their_own_answer(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = ["what is it", "how many dogs", "where is the cat", "a blue circle"]
    want = [ask(new_engine(), q)[-1].answer_ids for q in questions]
    permits = held(tiny_model, monkeypatch)
    engine = new_engine(batch=1)
    engine.register_picture("p", picture())
    streams = [engine.submit(Request(q, q, "p", sampling=SHORT)) for q in questions]
    permits.release(MANY)
    answers = [list(s) for s in streams]
    assert [a[-1].answer_ids for a in answers] == want
    places = [d.place for d in answers[3] if d.phase is Phase.WAITING]
    assert places[0] >= 3
    assert places == sorted(places, reverse=True)
    assert places[-1] == 1


def test_who_joins_the_line_is_told_how_long_once_a_request_has_ended(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    permits = held(tiny_model, monkeypatch)
    engine = new_engine(batch=1)
    engine.register_picture("p", picture())

    def estimate_of_the_second() -> float:
        streams = [
            engine.submit(Request(str(n), "what is it", "p", sampling=SHORT)) for n in (1, 2)
        ]
        permits.release(MANY)
        waiting, *rest = streams[1]
        assert waiting.phase is Phase.WAITING
        list(streams[0])
        assert all(d.estimate == 0 for d in rest if d.phase is not Phase.WAITING)
        return waiting.estimate

    assert estimate_of_the_second() == 0
    assert estimate_of_the_second() > 0


def test_stopped_while_waiting_leaves_the_line_at_once(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    permits = held(tiny_model, monkeypatch)
    engine = new_engine(batch=1)
    engine.register_picture("p", picture())
    long = replace(SHORT, min_new_tokens=12)
    streams = [engine.submit(Request(str(n), "what is it", "p", sampling=long)) for n in range(3)]
    streams[1].cancel()
    permits.release(2)  # the first answer has far to go
    assert list(streams[1])[-1].finish is FinishReason.CANCELLED
    permits.release(MANY)
    assert list(streams[2])[-1].finish is not FinishReason.CANCELLED


def test_a_full_line_is_refused(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    permits = held(tiny_model, monkeypatch)
    engine = new_engine(max_waiting=1)
    engine.register_picture("p", picture())
    running = engine.submit(Request("a", "what is it", "p", sampling=SHORT))
    while next(iter(running)).phase is Phase.WAITING:
        pass
    engine.submit(Request("b", "what is it", "p", sampling=SHORT))
    with pytest.raises(Busy):
        engine.submit(Request("c", "what is it", "p", sampling=SHORT))
    permits.release(MANY)
    assert list(running)[-1].finish is FinishReason.LENGTH


def test_a_deadline_ends_an_answer(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine()
    engine.register_picture("p", picture())
    deadline = time.monotonic() + 3
    run, calls = tiny_model.run, itertools.count(1)

    def late_in_the_third(*args: object) -> torch.Tensor:
        while next(calls) >= 3 and time.monotonic() <= deadline:
            time.sleep(0.01)
        return run(*args)

    monkeypatch.setattr(tiny_model, "run", late_in_the_third)
    long = SamplingParams(max_new_tokens=99, min_new_tokens=99)
    stream = engine.submit(Request("a", "what is it", "p", sampling=long, deadline=deadline))
    last = list(stream)[-1]
    assert last.finish is FinishReason.DEADLINE
    assert len(last.answer_ids) <= 3


def test_what_cannot_be_answered_is_refused_before_any_work(new_engine: Make) -> None:
    engine = new_engine()
    with pytest.raises(UnknownTurn, match="nowhere"):
        engine.submit(Request("r", "what is it", "nowhere"))
    engine.register_picture("p", picture())
    with pytest.raises(PromptTooLong):
        engine.submit(Request("r", "dog " * 400, "p"))
    with pytest.raises(InstructBlipError, match="empty"):
        engine.submit(Request("r", "  ", "p"))
    assert engine.statistics()["units"] == {}


def test_a_failing_request_fails_alone(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = ask(new_engine(), "what is it")[-1].answer_ids
    engine = new_engine()
    run = tiny_model.run
    bad: list[object] = [RuntimeError("kernel broke"), float("nan")]

    def break_once(*args: object) -> torch.Tensor:
        if bad:
            fault = bad.pop(0)
            if isinstance(fault, float):
                return run(*args) * fault
            raise fault
        return run(*args)

    monkeypatch.setattr(tiny_model, "run", break_once)
    codes = []
    for _ in range(2):
        last = ask(engine, "what is it")[-1]
        assert last.finish is FinishReason.ERROR
        codes.append(last.error.code)
    assert codes == ["internal", "not_finite"]
    assert ask(engine, "what is it")[-1].answer_ids == want


def test_streams_are_read_from_an_event_loop(new_engine: Make) -> None:
    engine = new_engine()
    engine.register_picture("p", picture())

    async def read() -> list[Delta]:
        return [d async for d in engine.submit(Request("r", "what is it", "p", sampling=SHORT))]

    # In a thread of its own: the browser tests leave a loop in this one.
    with ThreadPoolExecutor(1) as pool:
        deltas = pool.submit(lambda: asyncio.run(read())).result()
    assert deltas[-1].answer_ids == ask(engine, "what is it")[-1].answer_ids


def test_a_long_chat_trims_and_says_so(new_engine: Make) -> None:
    engine, history, trimmed = new_engine(), [], []
    for n in range(14):
        question = f"where is the red cat {n}"
        last = ask(engine, question, *history)[-1]
        trimmed.append(last.statistics.trimmed_turns)
        history.append(turn(question, last))
    assert trimmed[0] == 0 < trimmed[-1]
    # Between two rebuilds the kept turns are reused.
    assert len(set(trimmed)) < len(trimmed) - 3


def test_close_ends_what_runs_and_refuses_what_comes(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine()
    run = tiny_model.run

    def wait_for_the_end(*args: object) -> torch.Tensor:
        while not engine._closing:
            time.sleep(0.01)
        return run(*args)

    monkeypatch.setattr(tiny_model, "run", wait_for_the_end)
    engine.register_picture("p", picture())
    streams = [engine.submit(Request(str(n), "what is it", "p", sampling=SHORT)) for n in range(2)]
    engine.close()
    assert {list(s)[-1].finish for s in streams} == {FinishReason.CANCELLED}
    with pytest.raises(EngineStopped):
        engine.submit(Request("r", "what is it", "p"))
    engine._thread.join(PATIENCE)
    assert not any(t.name == "engine" and t.is_alive() for t in threading.enumerate())


def test_fifty_chats_leave_slots_and_caches_bounded(new_engine: Make) -> None:
    engine = new_engine(slots=3)
    for n in range(50):
        engine.register_picture(f"p{n}", picture((n, 200 - n, 40)))
        ask(engine, "what is it", picture_id=f"p{n}")
    assert engine.statistics()["slots"] <= 3
