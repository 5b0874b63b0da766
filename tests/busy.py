"""The suite on a busy machine: ``python -m tests.busy [--loops 2] [pytest arguments]``.

So many processes that never rest run beside it; the 40 slowest tests are listed at the end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOOP = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): pass"


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keep so many cores busy; a loop also ends when whoever began it is gone."""
    command = [sys.executable, "-c", LOOP, str(os.getpid())]
    running = [subprocess.Popen(command) for _ in range(loops)]
    try:
        yield
    finally:
        for loop in running:
            loop.kill()
            loop.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loops", type=int, default=2)
    given, rest = parser.parse_known_args(argv)
    with busy(given.loops):
        command = [sys.executable, "-m", "pytest", "--durations=40", *rest]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
