"""Strangers' pictures are read in processes of their own, a few at a time, in a fair line.

The line shares its time between visitors who have answers here and newcomers; below that addresses
take turns, below that owners. A picture that has used up its first seconds gives way when others
wait, a newcomer's to one who has answers here much sooner: it goes to a second line, of which one
process at most is busy, and begins anew there. So however many slow pictures there are, a quick one
waits for a few seconds of theirs at most.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from instructblip.errors import EngineStopped, InstructBlipError, PictureError
from instructblip.images import Prepared
from webui.bounds import Bound, Client
from webui.fairness import FairLine, SharedLine
from webui.picture_process import NotBegun, PictureProcess
from webui.picture_reader import Limits

log = logging.getLogger(__name__)
WORKERS = 2  # pictures read at once; with one, a slow picture of the second line would hold up all
FIRST_SECONDS = 2.0  # of CPU time, or twice that in all, before a picture gives way to who waits
_SOON = 0.25  # of these: a newcomer's gives way to those who have answers here
WALL_SECONDS = 60.0  # on a busy machine 10 s of CPU time may take as long
_TICK = 0.1  # seconds between two looks at the processes
_STARTS = 3  # tries to hand a picture to a process; one in waiting may have been killed
_CLOSE = 2.0  # seconds that the threads get to end


@dataclass(eq=False)
class _Job:
    client: Client
    source: Callable[[], bytes]
    answer: Future[Prepared] = field(default_factory=Future)
    process: PictureProcess | None = None
    since: float = 0.0  # time.monotonic() at which its process got it
    second: bool = False  # it has given way once
    gives_way: bool = False
    gone: bool = False

    @property
    def keys(self) -> tuple[Hashable, ...]:
        return self.client.known, self.client.address, self.client.owner


class Decoder:
    """Reads pictures; from any event loop.

    Args:
        limits: of one picture.
        first_seconds: CPU time after which a picture gives way to others.
        wall_seconds: time after which a picture is given up, however little of the CPU it got.
        bound: how many pictures clients may have in the line, being read included.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        first_seconds: float = FIRST_SECONDS,
        wall_seconds: float = WALL_SECONDS,
        bound: Bound | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.bound = bound or Bound("pictures", owner=8, address=32, total=64)
        self._first_seconds, self._wall_seconds = first_seconds, wall_seconds
        self._changed = threading.Condition()
        self._line: SharedLine[_Job] = SharedLine()
        self._second_line: FairLine[_Job] = FairLine()
        self._running: set[_Job] = set()
        self._threads: list[threading.Thread] = []
        self._closed = False

    async def read(self, client: Client, source: Callable[[], bytes]) -> Prepared:
        """Wait in line, have the picture read, and return it as it is kept.

        ``source`` gives the file's bytes; it is called when its turn has come, in a thread, so that
        the line holds no bytes. When the caller is cancelled, the picture leaves the line or is
        given up.

        Raises:
            Busy: too many pictures are on their way (``busy_pictures``, ``busy_pictures_all``).
            PictureError: the bytes are not a picture that can be read within the limits.
            EngineStopped: the server is stopping.
        """
        with self.bound.holding(client):
            job = _Job(client, source)
            self._enter(job)
            try:
                return await asyncio.wrap_future(job.answer)
            finally:
                self._leave(job)

    def open(self) -> None:
        """Make the processes ready; otherwise the first picture does."""
        with self._changed:
            if self._threads or self._closed:
                return
            works = [(self._serve, f"picture reader {n + 1}") for n in range(WORKERS)]
            for work, name in [*works, (self._watch, "picture watch")]:
                self._threads.append(threading.Thread(target=work, name=name, daemon=True))
                self._threads[-1].start()

    def close(self) -> None:
        """End all processes; what waits fails with EngineStopped. Takes 2 s at most."""
        with self._changed:
            self._closed = True
            while job := self._line.take() or self._second_line.take():
                _settle(job, _stopping())
            for job in self._running:
                _settle(job, _stopping())
                self._give_up(job)
            self._changed.notify_all()
        end = time.monotonic() + _CLOSE
        for thread in self._threads:
            thread.join(max(end - time.monotonic(), 0))

    # --- the line ------------------------------------------------------------------------------

    def _enter(self, job: _Job) -> None:
        self.open()
        with self._changed:
            if self._closed:
                raise _stopping()
            self._line.add(job, job.keys)
            self._changed.notify_all()

    def _leave(self, job: _Job) -> None:
        """The asker has his answer, or is gone."""
        with self._changed:
            self._line.remove(job, job.keys)
            self._second_line.remove(job, job.keys)
            if job in self._running:
                self._give_up(job)

    def _give_up(self, job: _Job) -> None:
        job.gone = True
        if job.process is not None:
            job.process.kill()

    def _next(self) -> _Job | None:
        """Wait for the next picture to read; None at the end."""
        with self._changed:
            while not self._closed:
                job = self._line.take()
                if job is None and not any(other.second for other in self._running):
                    job = self._second_line.take()
                if job is not None:
                    self._running.add(job)
                    return job
                self._changed.wait()
        return None

    def _done(self, job: _Job) -> None:
        with self._changed:
            self._running.discard(job)
            if job.since and not job.second:
                self._line.charge(job.client.known, time.monotonic() - job.since)
            job.process = None
            if job.gives_way and not job.gone and not job.answer.done() and not self._closed:
                job.second, job.gives_way = True, False
                self._second_line.add(job, job.keys)
            self._changed.notify_all()

    # --- the processes -------------------------------------------------------------------------

    def _serve(self) -> None:
        """A thread's life: one process after the other, each made before its picture comes."""
        while True:
            process = self._start()
            job = self._next()
            if job is None:
                if process is not None:
                    process.close()
                return
            try:
                result: Prepared | Exception = self._read(job, process)
            except Exception as error:
                result = error
            if not job.gives_way or isinstance(result, Prepared):
                _settle(job, result)
            self._done(job)

    def _start(self) -> PictureProcess | None:
        try:
            return PictureProcess(self.limits)
        except OSError as error:
            log.error("a process that reads pictures cannot be started: %s", error)
            return None

    def _read(self, job: _Job, process: PictureProcess | None) -> Prepared:
        try:
            data = job.source()
            for _ in range(_STARTS):
                process = process or self._start()
                if process is not None and self._hand_over(job, process):
                    with suppress(NotBegun):
                        return process.read(data)
                    process.close()
                if job.gone:
                    raise _stopping()
                process = None
        finally:
            if process is not None:
                process.close()
        raise InstructBlipError(
            "The process that reads pictures cannot be started. Ask the operator to look at the "
            "log.",
            code="picture_reader",
        )

    def _hand_over(self, job: _Job, process: PictureProcess) -> bool:
        """Whether there is still somebody who waits for the picture."""
        with self._changed:
            if not job.gone:
                if job.second:
                    process.lower()
                job.process, job.since = process, time.monotonic()
                self._changed.notify_all()  # there is something to watch
            return not job.gone

    def _watch(self) -> None:
        """Look after the processes: how long they take, and whether one is to give way."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._processes())
                if self._closed:
                    return
                running = self._processes()
            used = {job: process.seconds() for job, process in running.items()}
            for job, process in running.items():
                if error := self._excess(job, process, used[job]):
                    process.kill(error)
            self._make_room(used)
            time.sleep(_TICK)

    def _processes(self) -> dict[_Job, PictureProcess]:
        return {job: job.process for job in self._running if job.process is not None}

    def _excess(self, job: _Job, process: PictureProcess, seconds: float) -> PictureError | None:
        """Why a picture is to be given up. On Linux the process's own limits come first."""
        if seconds > self.limits.cpu:
            return process.too_slow()
        if process.memory() > self.limits.memory:
            return process.too_hungry()
        if time.monotonic() - job.since > self._wall_seconds:
            return process.too_slow(self._wall_seconds)
        return None

    def _make_room(self, used: dict[_Job, float]) -> None:
        """Let the picture that loses least give way, if others wait and nobody else is free soon."""
        with self._changed:
            if not self._line or len(self._running) < WORKERS:
                return
            if any(job.gives_way for job in self._running):
                return
            long = [job for job in self._running if not job.second and self._is_long(job, used)]
            if long:
                job = min(long, key=lambda job: used[job])
                job.gives_way = True
                if job.process is not None:
                    job.process.kill()

    def _is_long(self, job: _Job, used: dict[_Job, float]) -> bool:
        """Whether a picture has had its first seconds, of those who wait the most urgent regarded."""
        if job not in used:
            return False
        soon = not job.client.known and self._line.waits(True)
        most = self._first_seconds * (_SOON if soon else 1.0)
        # On a busy machine it gets little of the CPU, and takes a place all the same.
        return used[job] > most or time.monotonic() - job.since > 2 * most


def _settle(job: _Job, result: Prepared | Exception) -> None:
    with suppress(InvalidStateError):  # its asker is gone
        if isinstance(result, Exception):
            job.answer.set_exception(result)
        else:
            job.answer.set_result(result)


def _stopping() -> EngineStopped:
    return EngineStopped("The server is stopping. Send the picture again in a moment.")
