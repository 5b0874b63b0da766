"""A page and seven streams at once: everybody is served, by the command that measures stalls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_browser_and_seven_streams_are_all_served() -> None:
    # A process of its own: Playwright runs one event loop a process, and the tests' has it.
    command = [sys.executable, str(Path(__file__).with_name("soak.py")), "--seconds", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    rows = [line.split("|")[1:4] for line in ended.stdout.splitlines()[2:]]
    assert len(rows) == 8
    for _who, tokens, stall in rows:
        assert int(tokens) > 0
        assert float(stall) >= 0
