"""Who makes room, who has run out of time, and how much one address may hold."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from webui.asgi.lines import Limits, Line, Lines, Phase

LIMITS = Limits.of(1000, patience=10)


class Transport:
    """Notes that it was closed; ``unread`` bytes wait to be read."""

    def __init__(self) -> None:
        self.aborted, self.unread = False, 0

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unread


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def few(
    connections: int = 8, trusted: Callable[[str], bool] = lambda address: False, **limits: int
) -> tuple[Lines, Clock]:
    clock = Clock()
    values: dict[str, Any] = {
        **{name: getattr(LIMITS, name) for name in Limits.__slots__},
        "connections": connections, "address": 2, "sockets": 4, "bodies": 3, **limits,
    }  # fmt: skip
    return Lines(Limits(**values), trusted, clock), clock


def enter(lines: Lines, peer: str = "127.0.0.1", phase: Phase = Phase.HEAD) -> Line:
    line = lines.enter(Transport(), peer)  # type: ignore[arg-type]
    lines.move(line, phase)
    return line


def closed(line: Line) -> bool:
    return bool(line.transport.aborted)  # type: ignore[attr-defined]


def test_limits_leave_room_for_files() -> None:
    few_files, many, told = Limits.of(256), Limits.of(2**20), Limits.of(1024, wanted=100)
    assert (few_files.connections, few_files.streams) == (96, 36)
    assert many.connections == 4096
    assert told.connections == 100
    assert Limits.of(256, wanted=5000).connections == 144  # no more than there are descriptors
    assert few_files.sockets + 1 < few_files.connections
    assert 2 * few_files.streams <= few_files.sockets


def test_one_address_has_its_share_and_its_own_slowest_makes_room() -> None:
    lines, clock = few()
    first, second = enter(lines, "192.0.2.1"), enter(lines, "192.0.2.1", Phase.BUSY)
    other = enter(lines, "192.0.2.2")
    clock.now = 1
    assert lines.welcome("192.0.2.1")
    assert (closed(first), closed(second), closed(other)) == (True, False, False)
    enter(lines, "192.0.2.1", Phase.BUSY)
    assert not lines.welcome("192.0.2.1")  # the server works for both
    assert lines.welcome("192.0.2.2")
    lines.leave(second)
    lines.leave(second)
    assert lines.welcome("192.0.2.1")


def test_an_ipv6_network_is_one_address() -> None:
    lines, _ = few()
    for number in (1, 2):
        enter(lines, f"2001:db8::{number}", Phase.BUSY)
    assert not lines.welcome("2001:db8::3")
    assert lines.welcome("2001:db8:0:1::3")


def test_this_machine_and_the_operators_proxy_have_no_share() -> None:
    lines, _ = few(trusted=lambda address: address == "192.0.2.9")
    for peer in ("127.0.0.1", "::1", "192.0.2.9"):
        for _ in range(10):
            assert lines.welcome(peer)
            enter(lines, peer, Phase.BUSY)


def test_room_is_made_by_who_keeps_a_connection_for_nothing_the_longest() -> None:
    lines, clock = few()
    waiting = lines.enter(Transport(), "127.0.0.1", lambda: True)  # type: ignore[arg-type]
    lines.move(waiting, Phase.BODY)  # the server has not asked for it yet
    busy, socket = enter(lines, phase=Phase.BUSY), enter(lines, phase=Phase.SOCKET)
    upload, idle = enter(lines, phase=Phase.BODY), enter(lines, phase=Phase.IDLE)
    clock.now = 1
    head, drip = enter(lines), enter(lines, phase=Phase.BODY)
    for second in range(2, 9):
        clock.now = second
        lines.receive(upload, 100_000)
        lines.receive(drip, 1)
    clock.now = 8.5
    enter(lines)
    assert lines.full()
    order = []
    while lines.make_room():
        order += [each for each in (idle, head, drip) if closed(each) and each not in order]
    assert order[0] is idle
    assert set(order[1:]) == {head, drip}
    assert not any(map(closed, (busy, socket, upload, waiting)))


def test_who_does_not_read_makes_room_too() -> None:
    lines, clock = few()
    reader, deaf = enter(lines, phase=Phase.BUSY), enter(lines, phase=Phase.BUSY)
    for line in (reader, deaf):
        line.transport.unread = 60_000  # type: ignore[attr-defined]
    for clock.now in range(1, 59):
        reader.transport.unread = max(60_000 - 2_000 * int(clock.now), 0)  # type: ignore[attr-defined]
        lines.sweep()
    assert lines.make_room()
    assert (closed(reader), closed(deaf)) == (False, True)


@pytest.mark.parametrize(
    ("phase", "rate", "every", "ends"),
    [(Phase.HEAD, 1, 1, 11), (Phase.IDLE, 0, 1, 66), (Phase.BODY, 0, 1, 21), (Phase.BODY, 1, 19, 31),
     (Phase.BODY, 1, 1, 31), (Phase.BODY, 500, 1, 59), (Phase.BODY, 2_000, 1, None),
     (Phase.BUSY, 0, 1, None), (Phase.SOCKET, 0, 1, None)],
)  # fmt: skip
def test_what_is_not_finished_ends(phase: Phase, rate: int, every: int, ends: int | None) -> None:
    lines, clock = few()
    line = enter(lines, phase=phase)
    for clock.now in range(1, 200):
        if rate and clock.now % every == 0:
            lines.receive(line, rate)
        lines.sweep()
        if closed(line):
            break
    assert (clock.now if closed(line) else None) == ends


def test_a_body_that_the_server_does_not_take_is_not_late() -> None:
    lines, clock = few()
    asked = False
    line = lines.enter(Transport(), "127.0.0.1", lambda: not asked)  # type: ignore[arg-type]
    lines.move(line, Phase.BODY)
    for clock.now in range(1, 100):
        lines.sweep()
    assert not closed(line)
    asked = True
    for clock.now in range(100, 125):
        lines.sweep()
    assert closed(line)


@pytest.mark.parametrize("phase", [Phase.BUSY, Phase.SOCKET, Phase.IDLE])
def test_an_answer_that_is_not_read_ends(phase: Phase) -> None:
    lines, clock = few(head=10_000, idle=10_000)
    deaf, slow, steady = (enter(lines, phase=phase) for _ in range(3))
    deaf.transport.unread = 100  # type: ignore[attr-defined]
    for clock.now in range(1, 200):
        slow.transport.unread = 100_000 - int(clock.now)  # type: ignore[attr-defined]
        steady.transport.unread = 70_000  # type: ignore[attr-defined]
        steady.read_on()
        lines.sweep()
    assert (closed(deaf), closed(slow), closed(steady)) == (True, True, False)


def test_fast_bodies_do_not_take_all_places() -> None:
    lines, clock = few()
    greedy = [enter(lines, phase=Phase.BODY) for _ in range(3)]
    clock.now = 1
    for size, line in enumerate(greedy):
        lines.receive(line, 1_000_000 + size)
    newest = enter(lines, phase=Phase.BODY)
    assert [closed(line) for line in greedy] == [True, False, False]
    assert not closed(newest)


def test_websockets_leave_room_for_requests() -> None:
    lines, _ = few()
    for _ in range(4):
        assert lines.may_upgrade()
        enter(lines, phase=Phase.SOCKET)
    assert not lines.may_upgrade()
    assert not lines.full()


def test_the_log_gets_one_line_for_many(caplog: pytest.LogCaptureFixture) -> None:
    lines, clock = few(connections=2000)
    with caplog.at_level(logging.WARNING):
        for second in range(1, 40):
            for _ in range(50):
                enter(lines)
            enter(lines, phase=Phase.IDLE)
            clock.now = second
            lines.sweep()
    assert len(caplog.records) <= 4
    assert "connections were closed unfinished" in caplog.text


def test_finding_the_slowest_does_not_look_at_all_each_time() -> None:
    lines, clock = few(connections=5000, bodies=5000)
    looks = 0

    def waiting() -> bool:
        nonlocal looks
        looks += 1
        return False

    for _ in range(4000):
        lines.move(lines.enter(Transport(), "127.0.0.1", waiting), Phase.BODY)  # type: ignore[arg-type]
    clock.now, looks = 5, 0
    for _ in range(640):
        assert lines.make_room()
    assert looks < 640 * 100
