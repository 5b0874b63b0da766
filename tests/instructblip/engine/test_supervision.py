"""Whatever fails, wherever: every stream gets its last Delta, and health tells the truth."""

from __future__ import annotations

import asyncio
import pickle
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch

from instructblip.engine import local
from instructblip.engine.answer import Answer
from instructblip.engine.base import Delta, FinishReason, Health, Request, SamplingParams
from instructblip.engine.local import LocalEngine
from instructblip.engine.scheduler import Scheduler
from instructblip.engine.stream import LocalStream
from instructblip.errors import EngineStopped, InstructBlipError
from instructblip.wakes import together, wake
from tests.tiny import picture

Make = Callable[..., LocalEngine]
QUESTIONS = ("what is it", "where is the red cat", "how many dogs", "a blue circle")
SHORT = SamplingParams(max_new_tokens=10)
LIMIT = 60  # seconds until a stream that has not ended never will
ROUND = ("round", "end_interrupted", "_admit", "tell_places", "_encode", "_search", "_step")
FAULTS = (KeyError("a bug"), SystemExit("the thread dies"), MemoryError(), KeyboardInterrupt())


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def named(value: object) -> str:
    return value if isinstance(value, str) else type(value).__name__


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "FIRST_PAUSE", 0.001)


@pytest.fixture
def want(new_engine: Make) -> list[tuple[int, ...]]:
    return [deltas[-1].answer_ids for deltas in read(ask(new_engine()))]


def ask(engine: LocalEngine, questions=QUESTIONS, sampling=SHORT, **fields) -> list[LocalStream]:
    engine.register_picture("p", picture())
    return [engine.submit(Request(q, q, "p", sampling=sampling, **fields)) for q in questions]


def read(streams: list[LocalStream]) -> list[list[Delta]]:
    """All Deltas of each stream; each ends, with one last Delta at its end."""
    found: list[list[Delta]] = [[] for _ in streams]
    readers = [
        threading.Thread(target=lambda d=deltas, s=stream: d.extend(s), daemon=True)
        for deltas, stream in zip(found, streams, strict=True)
    ]
    for reader in readers:
        reader.start()
    end = time.monotonic() + LIMIT
    for reader in readers:
        reader.join(max(end - time.monotonic(), 0))
    assert not any(reader.is_alive() for reader in readers), "a stream never ended"
    for deltas in found:
        assert [d.finish is not None for d in deltas] == [False] * (len(deltas) - 1) + [True]
    return found


def breaking(target, name: str, patch: pytest.MonkeyPatch, when: Callable[[int], bool], fault):
    """Let a method fail at those of its calls."""
    real, calls = getattr(target, name), [0]

    def broken(*args, **kwargs):
        calls[0] += 1
        if when(calls[0]):
            raise fault
        return real(*args, **kwargs)

    patch.setattr(target, name, broken)


@pytest.mark.parametrize(
    ("name", "fault"), zip([*ROUND, "_wait_for_work"], FAULTS * 2, strict=True), ids=named
)
def test_one_failure_anywhere_in_the_loop_costs_no_answer(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch, want, name: str, fault: BaseException
) -> None:
    engine = new_engine()
    target = engine if name == "_wait_for_work" else engine._scheduler
    breaking(target, name, monkeypatch, lambda call: call == 3, fault)
    assert [deltas[-1].answer_ids for deltas in read(ask(engine))] == want
    assert engine.statistics()["restarts"] == 1
    assert engine.health().stepping


@pytest.mark.parametrize("name", ["recover", "forget", "end_lost"])
def test_a_failure_while_the_loop_starts_again_ends_every_stream(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    engine = new_engine()
    breaking(engine._scheduler, "_step", monkeypatch, lambda call: call == 3, KeyError("a bug"))
    breaking(engine._scheduler, name, monkeypatch, lambda call: call == 1, SystemExit())
    for deltas in read(ask(engine)):
        error = deltas[-1].error
        assert error is None or error.code in ("engine_restarted", "engine_dead", "internal")
    if engine.health().stepping:
        assert read(ask(engine))[0][-1].finish is not FinishReason.ERROR


@pytest.mark.parametrize("name", [*ROUND[:-1], "_wait_for_work"])
def test_a_loop_that_always_fails_gives_up_and_says_so(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    engine = new_engine(batch=2)
    target = engine if name == "_wait_for_work" else engine._scheduler
    streams = ask(engine, QUESTIONS * 2)
    breaking(target, name, monkeypatch, lambda call: True, KeyError("a bug"))
    ends = [deltas[-1] for deltas in read([*streams])]
    dead = [end.error for end in ends if end.finish is FinishReason.ERROR]
    assert dead
    assert all(isinstance(error, InstructBlipError) for error in dead)
    assert "Restart the server" in str(dead[-1])
    check_dead(engine)


def check_dead(engine: LocalEngine) -> None:
    with pytest.raises(EngineStopped, match="Restart the server") as refused:
        ask(engine)
    assert refused.value.code == "engine_dead"
    health = engine.health()
    assert not health.stepping
    assert "failed again and again" in health.reason
    assert "a bug" not in health.reason  # strangers read it
    assert pickle.loads(pickle.dumps(health)) == health
    assert engine.statistics()["stepping"] is False
    engine.close()


def test_a_loop_that_dies_beside_all_guards_leaves_no_stream_open(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine()
    breaking(engine, "_restart", monkeypatch, lambda call: True, SystemExit("a bug"))
    breaking(engine._scheduler, "_step", monkeypatch, lambda call: call == 3, KeyError("a bug"))
    for deltas in read(ask(engine)):
        assert deltas[-1].error.code == "engine_dead"
    check_dead(engine)


def test_a_thread_that_ends_without_a_word_is_noticed(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalEngine, "_run", lambda self: self._scheduler.open.add(held))
    held = LocalStream("r")
    held.stream, held.abandon = held, lambda reason, error=None: told.append((reason, error))
    told: list = []
    engine = new_engine(patience=0.2)
    end = time.monotonic() + LIMIT
    while not told and time.monotonic() < end:
        time.sleep(0.01)
    assert told[0][0] is FinishReason.ERROR
    assert isinstance(told[0][1], EngineStopped)
    assert not engine.health().stepping
    with pytest.raises(EngineStopped):
        ask(engine)


@pytest.mark.parametrize("seed", range(8))
def test_random_failures_leave_no_stream_open(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    engine = new_engine(batch=2)
    points = [(engine._scheduler, name) for name in (*ROUND, "recover", "forget", "end", "_finish")]
    points += [(engine, name) for name in ("_wait_for_work", "_restart")]
    points += [(Answer, name) for name in ("put", "end", "start", "restart", "tell", "interrupted")]
    points += [(Scheduler, "_guard")]
    for target, name in chance.sample(points, 3):
        breaking(
            target, name, monkeypatch, lambda call: chance.random() < 0.1, chance.choice(FAULTS)
        )
    streams: list[LocalStream] = []
    for question in QUESTIONS * 3:
        with suppress(EngineStopped, *map(type, FAULTS)):  # told to the caller of submit()
            streams += ask(engine, [question])
    for stream in streams[::5]:
        stream.cancel()
    read(streams)


# --- one request's fault -----------------------------------------------------------------------------


def test_a_deadline_that_is_none_ends_that_request_only(new_engine: Make, want) -> None:
    engine = new_engine(batch=1)
    streams = ask(engine, QUESTIONS[:2])
    bad = ask(engine, ["a green star"], deadline="soon")
    streams += ask(engine, QUESTIONS[2:])
    ends = read(streams)
    assert read(bad)[0][-1].error.code == "internal"
    assert [deltas[-1].answer_ids for deltas in ends] == want
    assert "restarts" not in engine.statistics()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("move", SystemExit()),
        ("move", Unprintable()),
        ("start", KeyError("a bug")),
        ("interrupted", SystemExit()),
        ("interrupted", Unprintable()),
        ("tell", SystemExit()),
        ("advance", KeyboardInterrupt()),
        ("encode", Unprintable()),
        ("encode", SystemExit()),
    ],
    ids=named,
)
def test_whatever_fails_for_one_request_fails_for_no_other(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch, want, name: str, fault: BaseException
) -> None:
    real = getattr(Answer, name)

    def broken(self: Answer, *args):
        if self.request.request_id == QUESTIONS[2]:
            raise fault
        return real(self, *args)

    monkeypatch.setattr(Answer, name, broken)
    engine = new_engine(batch=2)
    ends = [deltas[-1] for deltas in read(ask(engine))]
    if name != "move":  # it may be served without having moved
        assert ends[2].finish is FinishReason.ERROR
    assert [ends[n].answer_ids for n in (0, 1, 3)] == [want[n] for n in (0, 1, 3)]
    assert engine.health().stepping


def test_who_kills_the_loop_with_every_forward_is_found_among_those_beside_it(
    tiny_model, new_engine: Make, monkeypatch: pytest.MonkeyPatch, want
) -> None:
    from instructblip.engine.steps import RaggedStep

    run = RaggedStep.run

    def broken(self, pieces, between=None):
        if any(len(p.slot.keys) and poison[0].slot is p.slot for p in pieces if poison):
            raise SystemExit("the thread dies")
        return run(self, pieces, between)

    poison: list[Answer] = []
    start = Answer.start

    def note(self: Answer, *args) -> None:
        start(self, *args)
        if self.request.request_id == QUESTIONS[1]:
            poison[:] = [self]

    monkeypatch.setattr(RaggedStep, "run", broken)
    monkeypatch.setattr(Answer, "start", note)
    engine = new_engine()
    ends = [deltas[-1] for deltas in read(ask(engine))]
    assert ends[1].error.code == "engine_restarted"
    assert [ends[n].answer_ids for n in (0, 2, 3)] == [want[n] for n in (0, 2, 3)]
    assert engine.health().stepping


def test_a_failure_of_a_round_within_a_beam_search_is_not_the_searchs(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    beams = SamplingParams(max_new_tokens=8, num_beams=3)
    alone = read(ask(new_engine(), QUESTIONS[:1], beams))[0][-1].answer_ids
    engine = new_engine()
    breaking(engine._scheduler, "_step", monkeypatch, lambda call: call == 2, KeyError("a bug"))
    last = read(ask(engine, QUESTIONS[:1], beams))[0][-1]
    assert (last.answer_ids, last.finish is FinishReason.ERROR) == (alone, False)
    assert engine.statistics()["restarts"] == 1


def test_a_copy_of_a_slot_that_fails_leaves_no_wrong_prefix(
    new_engine: Make, monkeypatch: pytest.MonkeyPatch, want
) -> None:
    engine = new_engine(slots=2, batch=2)
    read(ask(engine))
    copy = engine._arena._copy

    def half(source: int, target: int, count: int) -> None:
        copy(source, target, count)
        raise RuntimeError("no memory to copy")

    with monkeypatch.context() as patch:
        patch.setattr(engine._arena, "_copy", half)
        read(ask(engine, QUESTIONS * 2))
    assert [deltas[-1].answer_ids for deltas in read(ask(engine))] == want


# --- the reader's fault ------------------------------------------------------------------------------


class BrokenLoop:
    """An event loop that cannot be called."""

    def call_soon_threadsafe(self, *_: object) -> None:
        raise ValueError("a loop of another kind")


def test_readers_that_cannot_be_woken_hurt_nobody(new_engine: Make, want) -> None:
    engine = new_engine()
    engine.register_picture("p", picture())

    def leave(stream: LocalStream) -> None:
        async def begin() -> None:
            async for _ in stream:
                return

        asyncio.run(begin())

    streams = ask(engine, QUESTIONS * 2)
    for stream in streams[:2]:
        thread = threading.Thread(target=leave, args=(stream,))  # its loop is closed afterwards
        thread.start()
        thread.join(LIMIT)
    streams[2]._wake = lambda: (_ for _ in ()).throw(ValueError("no such loop"))
    streams[3]._wake = lambda: wake(BrokenLoop(), asyncio.Event())
    assert [deltas[-1].answer_ids for deltas in read(streams[4:])] == want
    assert "restarts" not in engine.statistics()


def test_a_loop_that_cannot_be_called_keeps_no_other_from_being_woken() -> None:
    async def scene() -> bool:
        arrived = asyncio.Event()
        loop = asyncio.get_running_loop()

        def work() -> None:
            with together():
                wake(BrokenLoop(), asyncio.Event())
                with together():
                    wake(loop, arrived)

        await asyncio.to_thread(work)
        await asyncio.wait_for(arrived.wait(), LIMIT)
        return True

    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(scene())))
    thread.start()
    thread.join(LIMIT)
    assert found


def test_a_stream_takes_one_end_and_may_be_read_again() -> None:
    stream = LocalStream("r")
    last = Delta("r", "done", finish=FinishReason.ERROR)
    for _ in range(3):
        stream.put(last)
    assert read([stream]) == [[last]]
    assert list(stream) == []


# --- a unit of work that hangs ------------------------------------------------------------------------


@pytest.fixture
def hung(tiny_model, monkeypatch: pytest.MonkeyPatch):
    """Let forwards wait. → (set when one waits, set to let them go)."""
    begun, go, run = threading.Event(), threading.Event(), tiny_model.run

    def wait(*args: object) -> torch.Tensor:
        begun.set()
        go.wait(LIMIT)
        return run(*args)

    monkeypatch.setattr(tiny_model, "run", wait)
    yield begun, go
    go.set()


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_health_says_that_a_unit_hangs_and_that_it_has_come_back(new_engine: Make, hung) -> None:
    begun, go = hung
    engine = new_engine(patience=0.2, batch=1)
    assert engine.health() == Health()
    time.sleep(0.3)  # nothing to do is no reason
    assert engine.health() == Health()
    stopped, waiting = ask(engine, QUESTIONS[:2])
    assert begun.wait(LIMIT)
    until(lambda: not engine.health().stepping)
    assert "not finished a unit of work" in engine.health().reason
    with engine._changed:  # a loop that hangs may hold it
        thread = threading.Thread(target=engine.statistics)
        thread.start()
        thread.join(LIMIT)
        assert not thread.is_alive()
    stopped.cancel()
    assert read([stopped])[0][-1].finish is FinishReason.CANCELLED
    assert read([waiting])[0][-1].error.code == "engine_silent"
    assert not engine.health().stepping
    go.set()
    until(lambda: engine.health().stepping)
    assert read(ask(engine))[3][-1].finish is FinishReason.LENGTH


def test_a_unit_that_hangs_does_not_keep_the_end_from_the_streams(new_engine: Make, hung) -> None:
    engine = new_engine()
    streams = ask(engine)
    assert hung[0].wait(LIMIT)
    engine.close(0.1)
    assert {deltas[-1].finish for deltas in read(streams)} == {FinishReason.CANCELLED}


# --- a long line --------------------------------------------------------------------------------------


def test_leaving_a_long_line_takes_a_delta_each(
    new_engine: Make, hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 that wait are stopped at once: 2,001,000 Deltas where each told all behind it."""
    count, puts, put = 400, [0], LocalStream.put
    engine = new_engine(max_waiting=count + 10, batch=1)
    first = ask(engine, QUESTIONS[:1])
    assert hung[0].wait(LIMIT)
    line = ask(engine, [f"{QUESTIONS[1]} {n}" for n in range(count)])
    last = ask(engine, QUESTIONS[3:])

    def counted(self: LocalStream, delta: Delta) -> None:
        puts[0] += 1
        put(self, delta)

    monkeypatch.setattr(LocalStream, "put", counted)
    for stream in line:
        stream.cancel()
    hung[1].set()
    assert {deltas[-1].finish for deltas in read(line)} == {FinishReason.CANCELLED}
    (deltas,) = read(last)
    read(first)
    assert puts[0] < 2 * count
    places = [d.place for d in deltas if d.phase == "waiting"]
    assert places[0] == count + 2 - (places[0] == count + 1)
    assert places[-1] == 1


def test_a_round_tells_each_that_waits_at_most_once(
    new_engine: Make, hung, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, told = 60, []
    engine = new_engine(max_waiting=count, batch=4)
    running = ask(engine, QUESTIONS)
    assert hung[0].wait(LIMIT)
    line = ask(engine, [f"{QUESTIONS[1]} {n}" for n in range(count)])
    move, tell_places = Answer.move, engine._scheduler.tell_places
    monkeypatch.setattr(Answer, "move", lambda self, *a: (told.append(self), move(self, *a)))

    def once() -> None:
        tell_places()
        assert len(told) == len(set(told))
        told.clear()

    monkeypatch.setattr(engine._scheduler, "tell_places", once)
    for stream in running:
        stream.cancel()
    hung[1].set()
    assert all(deltas[-1].finish is not FinishReason.ERROR for deltas in read([*running, *line]))
    assert "restarts" not in engine.statistics()
