"""Sessions that come and go leave the server's memory where it was."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from driver import Server
from visits import Visit

SESSIONS = 50
ALLOWED = 15.0  # MB; half a megabyte a session would be 25


def memory(server: Server) -> float:
    """MB that only this process holds."""
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/smaps_rollup").read_text()
    return sum(int(x.split()[1]) for x in text.splitlines() if x.startswith("Private_")) / 1024


def settled(server: Server, enough: float = 0.0) -> float:
    """MB when it falls no longer, or is below what is enough: sessions are swept after they end."""
    least, looks = memory(server), 0
    while least > enough and looks < 20:
        time.sleep(0.1)
        now = memory(server)
        least, looks = min(least, now), looks + 1 if now >= least else 0
    return least


def visit(server: Server) -> None:
    """Open the page, let it compose a scene, ask, read the answer, leave."""
    with Visit(server.url) as tab:
        tab.event(None, "load", '{"chat": "new"}')
        tab.event("scene", "click")
        tab.event("box", "submit", {"text": "What is on the left?", "files": []})
        assert tab.follow()


def test_fifty_sessions_leave_memory_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTBLIP_KEEP_TABS", "0")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    command = [sys.executable, "-m", "webui", "--model", "embedded", "--device", "cpu"]
    command += ["--picture-memory", "0.002"]  # the warm-up fills it; a full cache is no leak
    server = Server(command, tmp_path / "data").start(120)
    try:
        for _ in range(20):  # caches fill, lazy imports happen
            visit(server)
        before = settled(server)
        for _ in range(SESSIONS):
            visit(server)
        after = settled(server, before + ALLOWED / 2)
    finally:
        server.kill()
    print(f"\n{SESSIONS} sessions: {before:.0f} MB before, {after:.0f} MB after")
    assert after - before < ALLOWED
