"""The thread that owns the device; everything else talks to it through its waiting line."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

import torch

from instructblip.conversation import ImageSegment, build_prompt
from instructblip.engine.answer import Answer
from instructblip.engine.base import FinishReason, Health, ModelCard, Request
from instructblip.engine.kv_cache import Arena, CacheShape, rows_within
from instructblip.engine.pictures import Pictures
from instructblip.engine.scheduler import Scheduler
from instructblip.engine.steps import RaggedStep, StaticStep, Stepper
from instructblip.engine.stream import LocalStream
from instructblip.errors import (
    Busy,
    EngineStopped,
    PromptTooLong,
    engine_closed,
    engine_dead,
    engine_silent,
)
from instructblip.model import InstructBlip
from instructblip.spread import cache_memory

log = logging.getLogger(__name__)

FAILURES = 8  # of the loop in a row, without a whole round in between, that the engine survives
FIRST_PAUSE = 0.01  # seconds after such a failure; twice as long after each further one
GIVE_UP = 5  # times the patience without a unit of work: requests are ended beside the loop


class LocalEngine:
    """An Engine over one model in this process.

    Args:
        model: a loaded model; the engine's thread is the only one that touches it afterwards.
        max_waiting: requests that may wait; one more raises Busy.
        slots: conversations whose keys and values are kept, at most.
        batch: requests that run at once, at most.
        kv_memory: bytes for keys and values; None takes a share of what is free.
        picture_memory: bytes for pictures' features and image tokens.
        static: the static step instead of the ragged one; None chooses by the device.
        patience: seconds that a unit of work may take before health says that the engine hangs.

    Raises:
        OutOfMemory: the memory does not hold the keys and values of one conversation.
    """

    def __init__(
        self, model: InstructBlip, *, max_waiting: int = 64, slots: int = 16, batch: int = 16,
        kv_memory: int | None = None, static: bool | None = None, picture_memory: int = 2**28,
        patience: float = 120.0,
    ) -> None:  # fmt: skip
        self._model = model
        self._card = model.card()
        self._max_waiting = max_waiting
        self._pictures = Pictures(picture_memory)
        self._arena = arena = _arena(model, slots, kv_memory)
        static = model.device.type in ("cuda", "npu") if static is None else static
        stepper: Stepper = (StaticStep if static else RaggedStep)(model, arena)
        self._scheduler = Scheduler(model, arena, stepper, self._pictures, batch)
        self._changed = threading.Condition()
        self._arrivals: deque[Answer] = deque()  # the scheduler's own line belongs to its thread
        self._patience = patience
        self._closing = threading.Event()
        self._fatal: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()
        threading.Thread(target=self._watch, name="engine's watch", daemon=True).start()

    @property
    def card(self) -> ModelCard:
        """What a page tells about the model."""
        return self._card

    def register_picture(self, picture_id: str, data: bytes) -> None:
        """Hand over a picture's bytes under its id."""
        self._pictures.register(picture_id, data)

    def has_picture(self, picture_id: str) -> bool:
        """Whether the bytes of this picture are still held."""
        return picture_id in self._pictures

    def submit(self, request: Request) -> LocalStream:
        """Queue a request; its prompt is laid out, and so refused, at once."""
        request.sampling.checked()
        prompt = build_prompt(request, self._model.properties, self._model.vocabulary)
        for segment in prompt.segments:
            if isinstance(segment, ImageSegment):
                self._pictures.require(segment.picture_id)
        if not request.question.strip():
            raise PromptTooLong("The question is empty. Type one.", code="question_empty")
        stream = LocalStream(request.request_id, on_cancel=self._call)
        answer = Answer(request, prompt, stream, self._model, self._card.context_length)
        with self._changed:
            if (stopped := self._why_stopped()) is not None:
                raise stopped
            waiting = len(self._scheduler.waiting) + len(self._arrivals)
            if waiting >= self._max_waiting:
                said = f"{waiting} questions are waiting already. Ask again in a moment."
                raise Busy(said, waiting=waiting)
            answer.place = waiting + 1
            answer.estimate = self._scheduler.estimate(answer.place)
            answer.put()
            if not self._scheduler.open:
                self._scheduler.progress = time.monotonic()
            self._scheduler.open.add(answer)
            self._arrivals.append(answer)
            self._changed.notify_all()
        return stream

    def statistics(self) -> dict[str, Any]:
        """Counters by kind, bytes of caches, and the longest forward so far (Stop may wait for it)."""
        counts = dict(self._scheduler.counts)  # no lock: a loop that hangs may hold it
        return {
            "waiting": len(self._scheduler.waiting) + len(self._arrivals),
            "running": len(self._scheduler.running),
            "stepping": self.health().stepping,
            "units": {k[5:]: n for k, n in counts.items() if k.startswith("unit.")},
            "slots": self._arena.held,
            "slot_bytes": self._arena.nbytes(),
            "longest_unit": self._scheduler.longest_unit,
            "picture_bytes": self._pictures.nbytes,
            **{k: n for k, n in counts.items() if not k.startswith("unit.")},
        }

    def health(self) -> Health:
        """Whether it gets on. Takes no lock, and so answers while the loop hangs or is dead."""
        since = time.monotonic() - self._scheduler.progress if self._scheduler.open else 0.0
        error = self._why_stopped()
        if error is None and since > self._patience:
            error = engine_silent(since)
        return Health(error is None, since, "" if error is None else str(error))

    def close(self, timeout: float = 3.0) -> None:
        """Stop the thread; running and waiting requests finish as CANCELLED."""
        self._closing.set()
        self._notify()
        for answer in list(self._scheduler.running):  # a forward of theirs is not waited for
            answer.stream.cancel()
        self._thread.join(timeout)
        self._abandon(FinishReason.CANCELLED, None)  # those of a thread that does not come back

    def _call(self) -> None:
        self._scheduler.called = True
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _why_stopped(self) -> EngineStopped | None:
        if self._fatal is not None:
            return engine_dead(self._fatal)
        if self._closing.is_set() or not self._thread.is_alive():
            return engine_closed()
        return None

    # --- the engine's thread, and the one beside it ----------------------------------------------

    def _run(self) -> None:
        """The loop; whatever ends it, no stream is left without its last Delta."""
        error: BaseException | None = None
        try:
            with torch.inference_mode():
                error = self._loop()
        except BaseException as fault:
            error = fault
        finally:
            if error is None:
                self._abandon(FinishReason.CANCELLED, None)
            else:
                self._die(error)

    def _loop(self) -> BaseException | None:
        """Rounds until the end; a failure, wherever it arises, costs a restart, no answer.

        → None when the engine was closed, or the last of too many failures in a row.
        """
        failures, error = 0, None
        while failures < FAILURES:
            try:
                if error is not None:
                    self._closing.wait(FIRST_PAUSE * 2 ** (failures - 1))
                    self._restart(error)
                    error = None
                if not self._wait_for_work():
                    return None
                self._scheduler.round()
                failures = 0
            except BaseException as fault:
                error, failures = fault, failures + 1
        return error

    def _wait_for_work(self) -> bool:
        with self._changed:
            while not (self._arrivals or self._scheduler.waiting or self._scheduler.running):
                if self._closing.is_set():
                    return False
                self._changed.wait()
            while self._arrivals:  # one by one: a failure in between loses none
                self._scheduler.waiting.append(self._arrivals[0])
                self._arrivals.popleft()
                self._scheduler.called = True  # it may have asked to stop already
        if self._closing.is_set():
            for answer in (*self._scheduler.waiting, *self._scheduler.running):
                answer.stream.cancelled.set()
        return True

    def _restart(self, error: BaseException) -> None:
        """After a failure: those who ran wait again, or are ended where that fails too."""
        try:
            self._scheduler.recover(error)
        except BaseException:
            log.exception("the engine could not go on with the requests that were running")
            self._scheduler.forget()
        with self._changed:
            self._scheduler.end_lost(self._arrivals)

    def _die(self, error: BaseException) -> None:
        log.critical("the engine has stopped for good", exc_info=error)
        with self._changed:  # whoever submits has joined already, or is refused
            self._fatal = error.with_traceback(None)
        self._abandon(FinishReason.ERROR, engine_dead(error))

    def _abandon(self, reason: FinishReason, error: EngineStopped | None) -> None:
        for answer in list(self._scheduler.open):
            answer.abandon(reason, error)

    def _watch(self) -> None:
        """Do what the loop cannot while it hangs: stop who asks for it, and give up in the end."""
        while not self._closing.wait(min(self._patience / 4, 5.0)):
            health = self.health()
            if health.stepping:
                continue
            if not self._thread.is_alive() or health.since > GIVE_UP * self._patience:
                self._abandon(
                    FinishReason.ERROR, self._why_stopped() or engine_silent(health.since)
                )
            for answer in list(self._scheduler.open):
                if answer.stream.cancelled.is_set():
                    answer.abandon(FinishReason.CANCELLED)


def _arena(model: InstructBlip, slots: int, memory: int | None) -> Arena:
    shape, length = CacheShape.of(model.text_config), model.properties.context_length
    memory = cache_memory(model.layer_devices) if memory is None else memory
    rows = rows_within(memory, shape, length, model.dtype, slots)
    return Arena(shape, rows, length, model.dtype, model.layer_devices)
