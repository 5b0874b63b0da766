"""Turns at the event loop: few at a time, and no stranger's many before another's one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from instructblip.errors import Busy
from webui.asgi import turns as turns_module
from webui.asgi.turns import Meter, Timed, Turn, Turns
from webui.bounds import Bound, Client

KNOWN = Client("known", known=True)


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 60))  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def begin(turns: Turns, client: Client) -> asyncio.Task[Turn]:
    return asyncio.ensure_future(turns.begin(client))


def test_so_many_begin_and_the_next_when_one_ends() -> None:
    async def story() -> None:
        turns = Turns(at_once=2, longest=600)
        asked = [begin(turns, KNOWN) for _ in range(3)]
        await settle()
        assert [task.done() for task in asked] == [True, True, False]
        for _ in range(3):
            asked[0].result().end()  # more than once is as once
        await settle()
        assert asked[2].done()
        more = begin(turns, KNOWN)
        await settle()
        assert not more.done()
        more.cancel()

    run(story)


def test_newcomers_never_take_all_and_others_do_where_they_ask_for_nothing() -> None:
    async def story() -> None:
        turns = Turns(at_once=4, newcomers=2, longest=600)
        strangers = [begin(turns, Client(f"new cookie {n}")) for n in range(100)]
        await settle()
        assert sum(task.done() for task in strangers) == 2
        known = [begin(turns, KNOWN) for _ in range(3)]
        await settle()
        assert [task.done() for task in known] == [True, True, False]
        for task in (*strangers, *known):
            task.cancel()

    run(story)


def test_between_many_newcomers_and_one_who_is_known_turns_alternate() -> None:
    async def story() -> None:
        turns = Turns(at_once=1, newcomers=1, longest=600)
        order: list[str] = []

        async def ask(client: Client) -> None:
            turn = await turns.begin(client)
            order.append("known" if client.known else "new")
            turn.end()

        first = await turns.begin(KNOWN)
        clients = [*(Client(f"new cookie {n}") for n in range(20)), *[KNOWN] * 5]
        asked = [asyncio.ensure_future(ask(client)) for client in clients]
        await settle()
        first.end()
        await asyncio.gather(*asked)
        assert order[:10] == ["new", "known"] * 5

    run(story)


def test_of_20_behind_one_tunnel_one_hostile_visitor_has_one_turn_in_a_round() -> None:
    async def story() -> None:
        turns = Turns(at_once=1, newcomers=1, longest=600)
        order: list[str] = []

        async def ask(owner: str) -> None:
            turn = await turns.begin(Client(owner))
            order.append(owner)
            turn.end()

        first = await turns.begin(KNOWN)
        owners = ["hostile"] * 50 + [f"visitor {n}" for n in range(19)]
        asked = [asyncio.ensure_future(ask(owner)) for owner in owners]
        await settle()
        first.end()
        await asyncio.gather(*asked)
        assert order[:20].count("hostile") == 1

    run(story)


def test_a_turn_ends_by_itself_where_something_else_is_waited_for() -> None:
    async def story() -> None:
        turns = Turns(at_once=1, longest=0.01)
        await turns.begin(KNOWN)
        (await turns.begin(KNOWN)).end()

    run(story)


def test_who_is_gone_has_no_turn() -> None:
    async def story() -> None:
        turns = Turns(at_once=1, longest=600)
        first = await turns.begin(KNOWN)
        gone, last = begin(turns, KNOWN), begin(turns, KNOWN)
        at_the_last_moment = begin(turns, KNOWN)
        await settle()
        gone.cancel()
        await settle()
        first.end()
        await settle()
        last.result().end()
        at_the_last_moment.cancel()  # it has been given its turn, and has not seen it yet
        await settle()
        (await turns.begin(KNOWN)).end()

    run(story)


def test_what_waits_is_bounded() -> None:
    async def story() -> None:
        bound = Bound("requests", owner=3, address=5, total=8)
        turns = Turns(at_once=1, longest=600, bound=bound)
        first = await turns.begin(KNOWN)
        mine = [begin(turns, Client("one")) for _ in range(4)]
        strangers = [begin(turns, Client(f"new cookie {n}")) for n in range(9)]
        await settle()
        with pytest.raises(Busy) as raised:
            mine[3].result()
        assert raised.value.code == "busy_requests"
        assert sum(task.done() for task in strangers) == 6  # 3 of 9 fit below newcomers' share
        known = begin(turns, KNOWN)
        await settle()
        assert not known.done()
        for task in (*mine[:3], *strangers, known):
            if not task.done():
                task.cancel()
        await settle()
        assert bound.held == 0
        first.end()

    run(story)


def test_newcomers_have_a_share_of_the_loops_time_while_others_are_about() -> None:
    async def story() -> None:
        turns = Turns(share=0.5, saved=0.0)
        stranger = Client("new cookie")
        turns.spend(stranger, 3600)
        (await turns.begin(stranger)).end()  # nobody else needs the loop
        (await turns.begin(KNOWN)).end()
        waiting = begin(turns, stranger)
        await settle()
        assert not waiting.done()
        (await turns.begin(KNOWN)).end()
        waiting.cancel()

    run(story)


def test_newcomers_go_on_once_they_have_paid() -> None:
    async def story() -> None:
        turns = Turns(share=0.5, saved=0.0)
        (await turns.begin(KNOWN)).end()
        turns.spend(Client("new cookie"), 0.05)
        began = time.monotonic()
        (await turns.begin(Client("other cookie"))).end()
        assert time.monotonic() - began >= 0.09

    run(story)


def test_many_newcomers_at_once_have_saved_up_for_it() -> None:
    async def story() -> None:
        turns = Turns(share=0.01, saved=3600)
        (await turns.begin(KNOWN)).end()
        for n in range(50):
            turns.spend(Client(f"cookie {n}"), 60)
            (await turns.begin(Client(f"cookie {n}"))).end()

    run(story)


def test_what_known_visitors_need_is_not_charged() -> None:
    async def story() -> None:
        turns = Turns(saved=0.0)
        turns.spend(KNOWN, 3600)
        (await turns.begin(KNOWN)).end()
        (await turns.begin(Client("new cookie"))).end()

    run(story)


def test_a_meter_charges_also_what_came_before_the_client_was_known() -> None:
    spent: list[tuple[str, float]] = []

    class Noting(Turns):
        def spend(self, client: Client, seconds: float) -> None:
            spent.append((client.owner, seconds))

    meter = Meter(Noting())
    meter.spend(1.0)
    meter.spend(2.0)
    assert not spent
    meter.charge(KNOWN)
    meter.spend(4.0)
    assert spent == [("known", 3.0), ("known", 4.0)]


def test_only_the_steps_of_a_request_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(turns_module, "time", SimpleNamespace(perf_counter=lambda: now))
    steps: list[float] = []

    async def work(over: asyncio.Event) -> None:
        nonlocal now
        now += 1
        await asyncio.sleep(0)
        now += 2
        try:
            await over.wait()
        except asyncio.CancelledError:
            now += 4
            await asyncio.sleep(0)
            raise

    async def story() -> None:
        nonlocal now

        async def timed() -> None:
            await Timed(work(asyncio.Event()), steps.append)

        task = asyncio.create_task(timed())
        await settle()
        now += 1000  # others'
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(story)
    assert steps == [1, 2, 4, 0]


def test_an_error_of_a_timed_request_is_its_own() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("mine")

    async def story() -> None:
        with pytest.raises(ValueError, match="mine"):
            await Timed(work(), lambda _: None)

    run(story)
