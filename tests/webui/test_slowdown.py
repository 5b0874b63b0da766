"""Guesses are slowed, nobody is locked out: on a clock of the test."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import suppress

import pytest

from webui import slowdown
from webui.slowdown import LONGEST_WAIT, PATIENCE, SlowDown, Slowed, Try

GUEST = Try("guest", True)
HOME = Try("guest", True, "192.0.2.1")
BROWSER = Try("guest", True, None, "device")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class House:
    """A slow-down with its clock, and visitors who do what they are told."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.slow = SlowDown(self.clock)

    def tries(self, asked: Try) -> bool:
        """One try without waiting, wrong if it passes."""
        with suppress(Slowed):
            self.slow.enter(asked)
            return True
        return False

    def flood(self, asked: Try, count: int = 500) -> int:
        """Many at once with nothing kept; how many passed."""
        return sum(self.tries(asked) for _ in range(count))

    def patient(self, asked: Try, between: Try | None = None, limit: float = 600.0) -> float:
        """Come, wait as long as told, come again, until one passes; the seconds it took."""
        begun = self.clock.now
        while self.clock.now - begun < limit:
            try:
                self.slow.enter(asked).right()
            except Slowed as slowed:
                asked = dataclasses.replace(asked, ticket=slowed.ticket or asked.ticket)
                for _ in range(slowed.seconds):
                    if between is not None:
                        self.flood(between)
                    self.clock.now += 1
            else:
                return self.clock.now - begun
        raise AssertionError("locked out")


@pytest.fixture
def house() -> House:
    return House()


def test_a_browser_of_ones_own_waits_longer_and_longer(house: House) -> None:
    told = []
    for _ in range(12):
        house.clock.now += told[-1] if told else 0
        assert house.tries(BROWSER)
        try:
            house.slow.enter(BROWSER).unused()
            told.append(0)
        except Slowed as slowed:
            told.append(slowed.seconds)
    assert told == [0, 0, 0, 0, 1, 2, 4, 8, 16, 30, 30, 30]
    house.clock.now += 30
    house.slow.enter(BROWSER).right()
    assert house.flood(BROWSER) == 5  # the right one has cleared them
    house.clock.now += slowdown.FORGOTTEN + 1
    assert house.flood(BROWSER) == 5


def test_a_browser_that_has_logged_in_is_not_slowed_by_others(house: House) -> None:
    for _ in range(60):
        house.flood(GUEST)
        house.flood(HOME)
        house.clock.now += 1
    house.slow.enter(BROWSER).right()
    house.slow.enter(dataclasses.replace(BROWSER, device="another")).right()


def test_against_one_login_strangers_try_once_a_second_over_a_long_time(house: House) -> None:
    passed = 0
    tickets: list[str] = [""] * 50
    for second in range(3600):
        passed += house.flood(GUEST, 5)
        for i in (second % 50, (second + 25) % 50):  # and fifty who wait as told, and guess on
            try:
                house.slow.enter(dataclasses.replace(GUEST, ticket=tickets[i]))
                passed += 1
                tickets[i] = ""
            except Slowed as slowed:
                tickets[i] = slowed.ticket
        house.clock.now += 1
    assert 1000 < passed <= 3600 + 40


@pytest.mark.parametrize("flooder", [GUEST, Try("nobody", False), HOME])
def test_a_first_visit_under_a_flood_waits_a_few_seconds(house: House, flooder: Try) -> None:
    names = itertools.cycle(dataclasses.replace(flooder, name=f"n{i}") for i in range(50))
    for _ in range(100):
        house.flood(flooder)
        house.flood(next(names) if not flooder.has_account else flooder)
        house.clock.now += 1
    assert house.patient(GUEST, flooder) <= PATIENCE + 1
    assert house.patient(dataclasses.replace(HOME, address="192.0.2.9"), flooder) <= PATIENCE + 1


def test_a_neighbour_behind_the_same_address_waits_a_minute_at_most(house: House) -> None:
    for _ in range(100):
        house.flood(HOME)
        house.clock.now += 1
    assert house.patient(HOME, HOME) <= PATIENCE + LONGEST_WAIT


def test_among_strangers_who_wait_as_well_everybody_has_his_turn(house: House) -> None:
    tickets: dict[int, str] = dict.fromkeys(range(30), "")
    due: dict[int, float] = dict.fromkeys(range(30), 0.0)

    def guess() -> None:
        for i in tickets:
            if house.clock.now < due[i]:
                continue
            try:
                house.slow.enter(dataclasses.replace(GUEST, ticket=tickets[i]))
            except Slowed as slowed:
                tickets[i], due[i] = slowed.ticket, house.clock.now + slowed.seconds

    for _ in range(120):
        guess()
        house.clock.now += 1
    asked, begun = GUEST, house.clock.now
    while True:
        try:
            house.slow.enter(asked).right()
            break
        except Slowed as slowed:
            asked = dataclasses.replace(asked, ticket=slowed.ticket)
            for _ in range(slowed.seconds):
                guess()
                house.clock.now += 1
    assert house.clock.now - begun <= PATIENCE + LONGEST_WAIT + 1


def test_right_passwords_use_nothing_up(house: House) -> None:
    for asked in (GUEST, HOME, BROWSER):
        for _ in range(100):
            house.slow.enter(asked).right()
        for _ in range(100):
            house.slow.enter(asked).unused()


def test_a_ticket_is_for_one_name_one_try_and_this_server(house: House) -> None:
    house.flood(GUEST)
    with pytest.raises(Slowed) as caught:
        house.slow.enter(GUEST)
    ticket = caught.value.ticket
    house.clock.now += PATIENCE
    house.flood(GUEST)
    other = SlowDown(house.clock)
    for _ in range(500):
        with suppress(Slowed):
            other.enter(GUEST)
    with pytest.raises(Slowed) as caught:
        other.enter(dataclasses.replace(GUEST, ticket=ticket))
    assert caught.value.ticket != ticket
    ann = Try("ann", True, ticket=ticket)
    house.flood(dataclasses.replace(ann, ticket=""))
    for wrong in (ticket[:-1] + ("0" if ticket[-1] != "0" else "1"), "x", "é-é", "nan-00-00", ""):
        assert not house.tries(dataclasses.replace(GUEST, ticket=wrong))
    assert not house.tries(ann)
    mine = dataclasses.replace(GUEST, ticket=ticket)
    house.slow.enter(mine).unused()  # the line for passwords was full
    assert house.tries(mine)
    assert not house.tries(dataclasses.replace(GUEST, ticket=ticket))


def test_an_address_guesses_slowly_at_all_names_together(house: House) -> None:
    passed = 0
    for i in range(600):
        for n in range(5):
            passed += house.tries(Try(f"name{5 * i + n}", False, "192.0.2.1"))
        house.clock.now += 1
    assert passed <= 30 + 0.5 * 600 + 1


def test_what_is_kept_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowdown, "_KEYS", 100)
    for i in range(3000):
        house.tries(Try(f"name{i}", False, f"192.0.{i // 250}.{i % 250}"))
        house.tries(Try("guest", True, None, f"device{i}"))
        house.clock.now += 1
    assert len(house.slow._addresses) == 100
    assert len(house.slow._delays._table) == 100
    assert len(house.slow._names) <= 1024 + 1
    assert len(house.slow._due) + len(house.slow._spent) < 2000
