"""Who encodes, who prefills, who decodes, who waits: continuous batching in rounds.

A round does at most two units of work: one ViT encode or Q-Former call for the first request that
needs one, then one forward for everybody that decodes with one prefill chunk of the first request
that prefills. Stop flags and deadlines are read after each unit.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial

from torch import Tensor

from instructblip.conversation import ImageSegment
from instructblip.devices import as_device_error, release_memory
from instructblip.engine.answer import Answer
from instructblip.engine.base import FinishReason, Phase
from instructblip.engine.kv_cache import Arena
from instructblip.engine.pictures import Pictures
from instructblip.engine.sampling import finite, greedy
from instructblip.engine.steps import Piece, Stepper
from instructblip.errors import InstructBlipError, OutOfMemory, failed_inside, not_finite, restarted
from instructblip.model import InstructBlip
from instructblip.wakes import together

log = logging.getLogger(__name__)

# Beside others who wait for tokens a prefill chunk adapts to last about this long (seconds).
CHUNK_SECONDS = 0.3
# Fewer tokens than the first hardly take less time: reading the weights is most of it.
CHUNK_TOKENS = (32, 1024)
LOOK_EVERY = 0.1  # seconds between two looks through the line for who is too late
SMOOTH = 0.8  # of the running mean that estimates are made from


class Interrupted(Exception):
    """The one request of a unit of work was stopped in its midst."""


class RoundFailed(Exception):
    """A round between two units of a beam search failed, by no fault of the search."""


class Scheduler:
    """Owns the arena and the running requests; one thread calls :meth:`round`."""

    def __init__(
        self, model: InstructBlip, arena: Arena, stepper: Stepper, pictures: Pictures, batch: int
    ) -> None:
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []
        self.open: set[Answer] = set()  # all whose last Delta has not been sent, wherever they are
        self.counts: Counter[str] = Counter()
        self.progress = time.monotonic()  # when a unit of work ended, or a request
        self.called = False  # somebody in the line asked to stop: look through it at once
        self._looked = 0.0
        self.batch = min(batch, len(arena.slots))
        self._model, self._arena = model, arena
        self._stepper, self._pictures = stepper, pictures
        self._rate = 64.0  # tokens a second of the last prefill chunk; slow until one was seen
        self.longest_unit = 0.0  # seconds of one forward: how long Stop may take
        self._seconds = 0.0  # running mean of a request's time from start to end
        self._started: dict[Answer, float] = {}

    def round(self) -> None:
        """End, admit, encode, step."""
        self.end_interrupted()
        self._admit()
        self.tell_places()
        self._encode()
        self.end_interrupted()
        self._search()
        self._step()

    def end_interrupted(self) -> None:
        """Requests that were stopped, or are too late, leave at once, waiting or running."""
        now, line = time.monotonic(), tuple[Answer, ...]()
        if self.called or now > self._looked + LOOK_EVERY:
            self.called, self._looked, line = False, now, tuple(self.waiting)
        leaving: dict[Answer, tuple[FinishReason, Exception | None]] = {}
        for answer in (*line, *self.running):
            try:
                if reason := answer.interrupted():
                    leaving[answer] = reason, None
            except BaseException as error:
                leaving[answer] = FinishReason.ERROR, _fault(answer, error)
        if not leaving:
            return
        # In one pass: each by itself would be looked for in the whole line.
        self.waiting = deque(a for a in self.waiting if a not in leaving)
        with together():
            for answer, (reason, why) in leaving.items():
                (self.end if answer in self.running else self._finish)(answer, reason, why)

    def end(self, answer: Answer, reason: FinishReason, error: Exception | None = None) -> None:
        """Take a request out and send its last Delta."""
        if answer in self.running:
            self.running.remove(answer)
            now = time.monotonic()
            spent = now - self._started.pop(answer, now)
            mean = self._seconds or spent
            self._seconds = SMOOTH * mean + (1 - SMOOTH) * spent
        elif answer in self.waiting:
            self.waiting.remove(answer)
        self._finish(answer, reason, error)

    def _finish(self, answer: Answer, reason: FinishReason, error: Exception | None) -> None:
        if answer.slot is not None:
            answer.slot.busy = False
        reason = answer.end(reason, error)
        self.open.discard(answer)
        self.counts["failed" if reason is FinishReason.ERROR else str(reason)] += 1
        self.progress = time.monotonic()

    def tell_places(self) -> None:
        """Tell each waiting request its place where that has changed; 1 is served next."""
        with together():
            for place, answer in enumerate(list(self.waiting), start=1):
                if answer.place != place:
                    try:
                        answer.move(place, self.estimate(place))
                    except BaseException as error:
                        self._fail(answer, error)

    def estimate(self, place: int) -> float:
        """Seconds until this place in line is served; 0 until a request has ended."""
        return self._seconds * place / max(self.batch, 1)

    def _admit(self) -> None:
        """First come, first served, while there are slots; one beam search at a time.

        Who was running when the loop failed runs alone: if it fails again, it is the cause.
        """
        while self.waiting and len(self.running) < self.batch:
            searching = any(a.beams for a in self.running)  # each search has caches of its own
            answer = next((a for a in self.waiting if not (a.beams and searching)), None)
            if answer is None:
                return
            if self.running and (answer.suspected or self.running[0].suspected):
                return
            try:
                if not self._start(answer):
                    return
            except BaseException as error:
                self._fail(answer, error)

    def _start(self, answer: Answer) -> bool:
        """Give a request its slot. → False while none is free."""
        taken = (None, 0) if answer.beams else self._arena.take(answer.keys)
        if taken is None:
            return False
        answer.slot = taken[0]
        self.waiting.remove(answer)
        self.running.append(answer)
        self._started[answer] = time.monotonic()
        answer.start(*taken)
        return True

    def _encode(self) -> None:
        answer = next((a for a in self.running if a.phase is Phase.ENCODING), None)
        if answer is not None:
            self._guard([answer], lambda: answer.encode(self._image_tokens))

    def _image_tokens(self, segment: ImageSegment) -> Tensor | None:
        found, unit = self._pictures.tokens(self._model, segment)
        if unit:
            self.counts[f"unit.{unit}"] += 1
        return found

    def _search(self) -> None:
        """Run a beam search to its end; everybody else has a round after each of its units."""
        ready = (a for a in self.running if a.beams and a.phase is Phase.PREFILL)
        if (answer := next(ready, None)) is None:
            return

        def unit() -> None:
            self.counts["unit.beams"] += 1
            try:
                self.round()
            except Exception as error:
                raise RoundFailed from error
            self._still(answer)

        def work() -> None:
            self.end(answer, answer.search(unit))

        with contextlib.suppress(Interrupted):
            self._guard([answer], work)

    def _step(self) -> None:
        stepping = [a for a in self.running if not a.beams]
        decoding = [a for a in stepping if a.phase is Phase.DECODE]
        prefilling = [a for a in stepping if a.phase is Phase.PREFILL][:1]
        if decoding or prefilling:
            self._forward(decoding + prefilling)

    def _still(self, answer: Answer) -> None:
        self.progress = time.monotonic()
        self.end_interrupted()
        if answer not in self.running:
            raise Interrupted

    def _forward(self, answers: Sequence[Answer]) -> None:
        between = partial(self._still, answers[0]) if len(answers) == 1 else None

        def work() -> None:
            pieces = [self._piece(answer) for answer in answers]
            began = time.monotonic()
            logits = self._stepper.run(pieces, between)
            self._tell()  # the tokens before, while a device works at the next ones
            self._count(pieces, time.monotonic() - began)
            self._take_in(answers, pieces, logits)
            if self._model.device.type == "cpu":
                self._tell()

        with contextlib.suppress(Interrupted):
            self._guard(answers, work)

    def _tell(self) -> None:
        with together():
            for answer in list(self.running):
                try:
                    answer.tell()
                except BaseException as error:
                    self._fail(answer, error)

    def _piece(self, answer: Answer) -> Piece:
        assert answer.slot is not None
        if answer.phase is Phase.DECODE:
            return Piece(answer.slot, token=answer.last)
        return Piece(answer.slot, answer.chunk(self._chunk()))

    def _chunk(self) -> int:
        low, high = CHUNK_TOKENS
        if not any(a.phase is Phase.DECODE for a in self.running):
            return high  # Stop is seen in each layer
        return int(min(max(self._rate * CHUNK_SECONDS, low), high))

    def _count(self, pieces: Sequence[Piece], seconds: float) -> None:
        if any(p.embeds is None for p in pieces):
            self.counts["unit.decode"] += 1
        for piece in pieces:
            if piece.embeds is not None:
                self.counts["unit.prefill"] += 1
                self._rate = piece.size / max(seconds, 1e-6)
        self.longest_unit = max(self.longest_unit, seconds)

    def _take_in(self, answers: Sequence[Answer], pieces: Sequence[Piece], logits: Tensor) -> None:
        """Count what was written, choose tokens, end who is done."""
        good, ready = finite(logits), {}
        for n, (answer, piece) in enumerate(zip(answers, pieces, strict=True)):
            at = len(piece.slot.keys)
            written = (piece.token,) if piece.embeds is None else answer.keys[at : at + piece.size]
            self._arena.extend(piece.slot, written)
            if not good[n]:
                self._arena.wipe(piece.slot)
                self.end(answer, FinishReason.ERROR, not_finite())
            elif answer.prefilled and answer in self.running:
                ready[n] = answer.sampler
        best = greedy(logits, ready)
        for n in ready:
            self._advance(answers[n], logits[n], best.get(n))

    def _advance(self, answer: Answer, logits: Tensor, best: int | None) -> None:
        """One request's next token; a failure here is its own, and the forward need not be redone."""
        try:
            reason = answer.advance(logits, best)
        except BaseException as error:
            self._fail(answer, error)
            return
        if reason is not None:
            self.end(answer, reason)

    def _guard(self, answers: Sequence[Answer], work: Callable[[], None]) -> None:
        """Run a unit of work; a failure ends only the request that causes it.

        Out of memory: caches go, the batch is split, and each part is tried once more. Any other
        failure of a batch: each request alone, so that only the faulty one fails.
        """
        try:
            work()
            self.progress = time.monotonic()
        except (Interrupted, RoundFailed):
            raise
        except Exception as error:
            typed = as_device_error(error)
            short = isinstance(typed, OutOfMemory)
            if short:
                self._shrink()
            if len(answers) > 1:
                middle = len(answers) // 2 if short else 1
                for part in (answers[:middle], answers[middle:]):
                    if left := [a for a in part if a in self.running]:
                        self._forward(left)
                return
            answer = answers[0]
            if short and not answer.retried:
                answer.retried = True
                answer.again()  # it stays in line for the next round
                return
            if typed is not None:  # whoever asked reads a sentence; the log has the rest
                log.error("request %s: %s", answer.request.request_id, typed, exc_info=error)
            self._fail(answer, typed or error)

    def _shrink(self) -> None:
        self._pictures.clear_tensors()
        release_memory(self._model.device)
        self._rate /= 4
        self.counts["out_of_memory"] += 1

    def _fail(self, answer: Answer, error: BaseException) -> None:
        self.end(answer, FinishReason.ERROR, _fault(answer, error))

    def recover(self, error: BaseException) -> None:
        """After a failure of the scheduler itself: running requests start over from their turns.

        A request that was running at two such failures gets a retryable error.
        """
        log.error("the engine's loop failed and starts again", exc_info=error)
        self.counts["restarts"] += 1
        for answer in list(reversed(self.running)):  # the first of them is the first in line again
            if answer.suspected:
                self.end(answer, FinishReason.ERROR, restarted())
                continue
            answer.suspected = True
            try:
                self.running.remove(answer)
                answer.restart()
                self.waiting.appendleft(answer)
            except BaseException as fault:
                self._fail(answer, fault)
        self.forget()
        self.tell_places()

    def forget(self) -> None:
        """Nobody runs, and no slot holds anything. Whoever ran and is not waiting is lost."""
        self.running.clear()
        self._started.clear()
        for slot in self._arena.slots:
            slot.busy = False
            slot.keys.clear()

    def end_lost(self, arrivals: Collection[Answer]) -> None:
        """End the requests that a failure has left in no line."""
        for answer in self.open.difference(self.waiting, self.running, arrivals):
            self._finish(answer, FinishReason.ERROR, restarted())


def _fault(answer: Answer, error: BaseException) -> InstructBlipError:
    """What is told of a failure; the log has the rest."""
    if isinstance(error, InstructBlipError):
        return error
    log.error("request %s failed", answer.request.request_id, exc_info=error)
    return failed_inside(error)
