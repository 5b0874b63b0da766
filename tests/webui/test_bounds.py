"""Bounds per owner, per address and in all, against an attacker with a new cookie each time."""

import threading

import pytest

from instructblip.errors import Busy
from webui.bounds import Bound, Client, network


def full(bound: Bound, *clients: Client) -> int:
    """How many of the clients may enter, one after the other."""
    entered = 0
    for client in clients:
        try:
            bound.enter(client)
            entered += 1
        except Busy:
            pass
    return entered


def test_an_owner_has_his_bound_and_gets_it_back() -> None:
    bound = Bound("uploads", owner=2, address=10, total=10)
    first = bound.enter(Client("a"))
    bound.enter(Client("a"))
    with pytest.raises(Busy) as caught:
        bound.enter(Client("a"))
    assert caught.value.code == "busy_uploads"
    bound.enter(Client("b"))
    first.leave()
    first.leave()
    assert bound.of("a") == 1
    bound.enter(Client("a"))


def test_a_new_cookie_for_each_request_meets_the_bound_of_its_address() -> None:
    bound = Bound("uploads", owner=2, address=5, total=100)
    attacker = [Client(f"a-{n}", "203.0.113.7") for n in range(50)]
    assert full(bound, *attacker) == 5
    assert full(bound, Client("other", "203.0.113.8")) == 1


def test_behind_a_tunnel_newcomers_leave_room_for_those_who_have_answers() -> None:
    bound = Bound("uploads", owner=2, address=5, total=40)
    hostile = [Client(f"a-{n}") for n in range(500)]
    assert full(bound, *hostile) == 30
    assert full(bound, *(Client(f"here-{n}", known=True) for n in range(19))) == 10
    # who has answers is bounded as well, one by one
    fresh = Bound("uploads", owner=2, address=5, total=40)
    assert full(fresh, *[Client("here", known=True)] * 9) == 2


def test_nothing_is_kept_of_who_holds_nothing() -> None:
    bound = Bound("uploads", owner=1, address=1, total=10)
    for n in range(100):
        with bound.holding(Client(f"a-{n}", f"198.51.100.{n}"), 0.1):
            pass
    assert bound.held == pytest.approx(0)
    assert not bound._owners
    assert not bound._addresses


def test_many_threads_count_right() -> None:
    bound = Bound("uploads", owner=1, address=50, total=100)

    def work(n: int) -> None:
        for _ in range(200):
            bound.enter(Client(f"a-{n}", "x", known=True)).leave()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bound.held == 0


@pytest.mark.parametrize(
    ("address", "stands"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("", None),
        ("unix", None),
    ],
)
def test_addresses(address: str, stands: str | None) -> None:
    assert network(address) == stands
