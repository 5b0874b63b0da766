"""Many users beside one hostile visitor: are all answers right, and how late is the first word?

``python tests/security/crowd.py --users 50 --seconds 180 --both`` prints a table. Each run has a
real server of its own (``python -m webui``, the embedded model, CPU) on loopback. ``--hostile``:
only beside the hostile visitor (see hostile.py); ``--both``: without him, beside him, and beside a
process that burns as much CPU as he did, for the machine has only so many cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.browser.driver import Server  # noqa: E402
from tests.security.users import Crowd, alone, chats, crowd  # noqa: E402
from webui.sessions import COOKIE, Signer, load_key  # noqa: E402

COOKIES = 5000  # that the hostile visitor has collected
COMMAND = [sys.executable, "-m", "webui", "--model", "embedded", "--device", "cpu"]


@dataclass
class Measured:
    """One run. ``memory`` is the most that the server's processes had, in bytes; ``share`` the
    hostile visitor's share of a core."""

    name: str
    crowd: Crowd = field(default_factory=Crowd)
    wrong: int = 0
    memory: int = 0
    busy: float = 0.0  # cores that the server used
    log: int = 0
    traceback: bool = False
    share: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    def wait(self, part: float) -> float:
        """Seconds until the first word: the quantile of all answers."""
        waits = self.crowd.waits
        return waits[min(int(part * len(waits)), len(waits) - 1)] if waits else float("nan")

    def row(self) -> str:
        """A line of the table."""
        waits = self.crowd.waits
        median = statistics.median(waits) if waits else float("nan")
        return (
            f"| {self.name} | {len(waits)} | {self.wrong} | {len(self.crowd.refused)} "
            f"| {median:.2f} | {self.wait(0.95):.2f} | {self.wait(1):.2f} "
            f"| {self.memory / 2**20:.0f} | {self.log / 1000:.1f} | {self.busy:.2f} "
            f"| {self.share:.2f} |"
        )


HEAD = (
    "| run | answers | wrong | refused | first word, median s | 95 % | max | server MB | log kB "
    "| server's cores | hostile's |\n" + "| --- " * 11 + "|"
)


@contextmanager
def hostile(
    url: str, data: Path, seconds: float, flags: Sequence[str], measured: Measured
) -> Iterator[None]:
    """The hostile visitor at work; what he did is noted at the end."""
    signer = Signer(load_key(data))
    cookies = data.parent / "cookies"
    made = (f"{COOKIE}={signer.cookie(signer.new_visitor())}" for _ in range(COOKIES))
    cookies.write_text("\n".join(made))
    script = str(Path(__file__).with_name("hostile.py"))
    command = [sys.executable, script, url, str(cookies), "--seconds", str(seconds), *flags]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert running.stdout is not None
    try:
        assert running.stdout.readline() == "ready\n"
        yield
        running.send_signal(signal.SIGTERM)
        told = json.loads(running.communicate(timeout=60)[0] or "{}")
        measured.share, measured.counts = told.get("share", 0.0), told.get("counts", {})
    finally:
        running.kill()
        running.wait()


@contextmanager
def watched(server: Server, measured: Measured) -> Iterator[None]:
    """Note the server's memory, CPU time and log."""
    assert server.process is not None
    process, over = psutil.Process(server.process.pid), threading.Event()
    written, used = len(server.log()), _seconds(process)

    def watch() -> None:
        while not over.wait(1.0):
            total = process.memory_info().rss
            for child in process.children():
                try:
                    total += child.memory_info().rss
                except psutil.Error:  # it has read its picture
                    continue
            measured.memory = max(measured.memory, total)

    thread = threading.Thread(target=watch, daemon=True)
    began = os.times().elapsed
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        measured.busy = (_seconds(process) - used) / (os.times().elapsed - began)
        log = server.log()[written:]
        measured.log, measured.traceback = len(log), "Traceback" in log


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system)


def measure(
    name: str, users: int, seconds: float, flags: Sequence[str] | None,
    pauses: Sequence[float] = (2.0, 5.0), answers: dict[tuple[int, int], str] | None = None,
    chosen: Sequence[int] = (),
) -> Measured:  # fmt: skip
    """One run on a server of its own.

    Args:
        flags: of the hostile visitor; None: he is not there.
        answers: what is given alone; asked for beforehand, and put here, where it is empty.
        chosen: the chats that users have; all of them where none is named.
    """
    measured, answers = Measured(name), {} if answers is None else answers
    chosen = chosen or range(len(chats()))
    with TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        server = Server(COMMAND, data).start(240)
        try:
            answers.update(answers or asyncio.run(alone(server.url, chosen)))
            with watched(server, measured):
                beside = nullcontext() if flags is None else hostile(
                    server.url, data, seconds + 60, flags, measured
                )  # fmt: skip
                with beside:
                    users_do = crowd(server.url, users, seconds, pauses, chosen)
                    measured.crowd = asyncio.run(users_do)
        finally:
            server.kill(signal.SIGTERM)
    measured.wrong = len(measured.crowd.wrong(answers))
    return measured


def main() -> int:
    """Print the table; 1 where an answer was wrong or refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--both", action="store_true")
    parser.add_argument("--only", default="AEGH", help="the hostile visitor's attacks")
    parser.add_argument("--rate", type=float, default=1, help="times his usual rate")
    given = parser.parse_args()
    answers: dict[tuple[int, int], str] = {}
    runs: list[Measured] = []

    def run(name: str, flags: Sequence[str] | None) -> None:
        runs.append(measure(name, given.users, given.seconds, flags, answers=answers))
        print(*([HEAD] if len(runs) == 1 else []), runs[-1].row(), sep="\n", flush=True)
        for why, count in Counter(a.refused for a in runs[-1].crowd.refused).most_common(10):
            print(f"refused {count}: {why}", flush=True)

    if given.both or not given.hostile:
        run("without", None)
    if given.both or given.hostile:
        run("hostile", ("--only", given.only, "--rate", str(given.rate)))
        print_hostile(runs[-1])
    if given.both:
        run("burning", ("--burn", str(max(runs[-1].share, 0.01))))
        compare(*runs)
    return int(any(one.wrong or one.crowd.refused for one in runs))


def print_hostile(run: Measured) -> None:
    """What the hostile visitor did."""
    print("hostile:", ", ".join(f"{count} {what}" for what, count in run.counts.items()))
    print("a traceback in the log" if run.traceback else "no traceback in the log", flush=True)


def compare(without: Measured, beside: Measured, burning: Measured) -> None:
    """How much later the first word came."""
    for name, other in (("without him", without), ("beside as much burnt CPU", burning)):
        ratios = [beside.wait(part) / other.wait(part) for part in (0.5, 0.95)]
        print(
            f"first word against {name}: median {ratios[0]:.2f} times, 95 % {ratios[1]:.2f} times"
        )


if __name__ == "__main__":
    raise SystemExit(main())
