"""The pictures' line: fair, bounded, and no one's picture lost through another's."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest
from driver import picture
from hostile_pictures import many_scans

from instructblip.errors import EngineStopped, InstructBlipError, PictureError
from webui import decoding
from webui.bounds import Bound, Client
from webui.decoding import WORKERS, Decoder, _Job
from webui.picture_reader import Limits

SLOW = many_scans(2000, 3000)  # some seconds of CPU time
QUICK = picture()
MANY = Bound("pictures", owner=100, address=100, total=1000)


@pytest.fixture
def make() -> Iterator[Callable[..., Decoder]]:
    made: list[Decoder] = []

    def decoder(cpu: float = 1.0, **options: Any) -> Decoder:
        options = {"first_seconds": 0.3, "bound": MANY} | options
        made.append(Decoder(Limits(cpu=cpu), **options))
        return made[-1]

    yield decoder
    for one in made:
        one.close()
    assert not processes()


def processes() -> list[psutil.Process]:
    """The picture processes of this one."""
    found = []
    for child in psutil.Process().children():
        try:
            if "webui.picture_reader" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def busy() -> list[psutil.Process]:
    """Those that are at work on something slow."""
    return [process for process in processes() if process.cpu_times().user > 0.2]


async def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to that")


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 120))


def code(result: object) -> str:
    return result.code if isinstance(result, InstructBlipError) else "read"


def owners(count: int, **values: Any) -> list[Client]:
    return [Client(f"a-{n}", **values) for n in range(count)]


async def order(decoder: Decoder, asked: list[tuple[Client, bytes]]) -> list[int]:
    """Which were done, in their order, up to the last quick one; the rest is not waited for."""
    done: list[int] = []

    async def one(number: int, client: Client, data: bytes) -> None:
        with suppress(InstructBlipError):
            await decoder.read(client, lambda: data)
        done.append(number)

    tasks = []
    for number, item in enumerate(asked):
        tasks.append(asyncio.create_task(one(number, *item)))
        await asyncio.sleep(0.01)
    await asyncio.gather(*(t for t, (_, data) in zip(tasks, asked, strict=True) if data == QUICK))
    found = list(done)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return found


def test_many_pictures_are_read_from_several_loops(make) -> None:
    decoder = make(cpu=10)
    pictures = [picture(f"#0000{n:02x}") for n in range(12)]

    async def main() -> None:
        read = (decoder.read(Client("a"), lambda data=data: data) for data in pictures)
        results = await asyncio.gather(*read)
        assert len({kept.data for kept in results}) == len(pictures)

    run(main())
    run(main())
    assert MANY.held == 0


@pytest.mark.parametrize(
    ("hostile", "bystander"),
    [
        ([Client("hostile")] * 6, Client("by")),
        (owners(6, address="203.0.113.7"), Client("by", "203.0.113.8")),
        (owners(6), Client("by", known=True)),
        (owners(6, address="203.0.113.7"), Client("by", known=True)),
    ],
    ids=["one owner", "an address", "a tunnel", "no address of the known"],
)
def test_a_bystander_is_read_before_all_but_a_few(make, hostile, bystander) -> None:
    decoder = make(cpu=4.0)

    async def main() -> None:
        done = await order(decoder, [*((client, SLOW) for client in hostile), (bystander, QUICK)])
        assert len(done) <= WORKERS

    run(main())


def test_twenty_newcomers_behind_a_tunnel_do_not_wait_for_the_hostile_one(make) -> None:
    decoder = make(cpu=4.0)

    async def main() -> None:
        quick = [(client, QUICK) for client in owners(19)]
        done = await order(decoder, [(Client("hostile"), SLOW)] * 5 + quick)
        assert len([number for number in done if number < 5]) <= 1

    run(main())


def test_a_slow_picture_gives_way_once_and_is_read_all_the_same(make) -> None:
    decoder = make(cpu=30.0)
    data = many_scans(2000, 500)
    results: list[Any] = []

    async def main() -> None:
        slow = [asyncio.create_task(decoder.read(c, lambda: data)) for c in owners(3)]
        await until(lambda: len(busy()) == WORKERS)
        results.append(await decoder.read(Client("by"), lambda: QUICK))
        assert not all(task.done() for task in slow)
        results.extend(await asyncio.gather(*slow))

    run(main())
    assert [kept.width for kept in results] == [120, 2000, 2000, 2000]


def test_too_slow_says_so_and_the_next_is_read(make) -> None:
    decoder = make()

    async def main() -> None:
        read = (decoder.read(Client("a"), lambda d=d: d) for d in (SLOW, SLOW, SLOW, QUICK))
        results = await asyncio.gather(*read, return_exceptions=True)
        assert [code(r) for r in results] == ["picture_too_slow"] * 3 + ["read"]
        assert "1 s" in str(results[0])

    run(main())


def test_the_server_watches_where_the_machine_sets_no_limits(make, monkeypatch) -> None:
    monkeypatch.setattr(decoding.PictureProcess, "memory", lambda process: 2 * 10**9)
    decoder = make(cpu=30.0)

    async def main() -> None:
        with pytest.raises(PictureError) as caught:
            await decoder.read(Client("a"), lambda: SLOW)
        assert caught.value.code == "picture_too_hungry"

    run(main())


def test_a_picture_that_gets_no_time_is_given_up(make) -> None:
    decoder = make(cpu=100.0, wall_seconds=0.5)

    async def main() -> None:
        with pytest.raises(PictureError) as caught:
            await decoder.read(Client("a"), lambda: SLOW)
        assert caught.value.code == "picture_too_slow"

    run(main())


def test_a_killed_process_costs_nobody_elses_picture(make) -> None:
    decoder = make(cpu=30.0)

    async def main() -> None:
        slow = asyncio.create_task(decoder.read(Client("a"), lambda: SLOW))
        (process,) = await until(busy)
        others = [asyncio.create_task(decoder.read(c, lambda: QUICK)) for c in owners(5)]
        process.kill()
        assert [kept.width for kept in await asyncio.gather(*others)] == [120] * 5
        with pytest.raises(PictureError) as caught:
            await slow
        assert caught.value.code == "picture_crashed"

    run(main())


def test_processes_killed_while_they_wait_cost_nothing(make) -> None:
    decoder = make()
    decoder.open()

    async def main() -> None:
        for process in await until(lambda: len(processes()) == WORKERS and processes()):
            process.kill()
        results = [await decoder.read(c, lambda: QUICK) for c in owners(3)]
        assert [kept.width for kept in results] == [120] * 3

    run(main())


def test_whose_asker_is_gone_is_not_read(make) -> None:
    decoder = make(cpu=60.0, first_seconds=600.0)  # none gives way to the next one
    asked: list[int] = []

    def source(n: int) -> Callable[[], bytes]:
        return lambda: asked.append(n) or SLOW

    async def main() -> None:
        tasks = [asyncio.create_task(decoder.read(Client("a"), source(n))) for n in range(6)]
        await until(lambda: len(busy()) == WORKERS)
        working = busy()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        assert (await decoder.read(Client("b"), lambda: QUICK)).width == 120
        await until(lambda: not any(process.is_running() for process in working))

    run(main())
    assert 5 not in asked
    assert MANY.held == 0


def test_the_line_is_bounded_for_an_owner_and_for_newcomers(make) -> None:
    decoder = make(cpu=60.0, bound=Bound("pictures", owner=2, address=10, total=8))

    async def main() -> None:
        asked = [(Client("a"), "busy_pictures"), *((c, "busy_pictures_all") for c in owners(9))]
        tasks = [
            asyncio.create_task(decoder.read(client, lambda: SLOW))
            for client, _ in [asked[0], asked[0], *asked]
        ]
        await asyncio.sleep(0.2)
        refused = [task.exception().code for task in tasks if task.done()]
        assert refused == ["busy_pictures"] + ["busy_pictures_all"] * 5
        assert (await decoder.read(Client("b", known=True), lambda: QUICK)).width == 120
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    run(main())


def test_a_source_that_fails_is_told_to_its_asker_alone(make) -> None:
    decoder = make()

    def gone() -> bytes:
        raise PictureError("The file is gone. Send it again.", code="picture_absent")

    async def main() -> None:
        with pytest.raises(PictureError, match="gone"):
            await decoder.read(Client("a"), gone)
        assert (await decoder.read(Client("a"), lambda: QUICK)).width == 120

    run(main())


def test_where_no_process_can_be_made_it_is_said(make, monkeypatch, caplog) -> None:
    def none(*_: object) -> None:
        raise OSError("no more processes")

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "PictureProcess", none)
        decoder = make()

        async def main() -> None:
            with pytest.raises(InstructBlipError) as caught:
                await decoder.read(Client("a"), lambda: QUICK)
            assert caught.value.code == "picture_reader"

        run(main())
    assert "no more processes" in caplog.text

    async def again() -> None:  # it is tried anew
        assert (await decoder.read(Client("a"), lambda: QUICK)).width == 120

    run(again())


def test_closing_ends_what_is_read_and_what_waits(make) -> None:
    decoder = make(cpu=60.0)

    async def main() -> None:
        tasks = [asyncio.create_task(decoder.read(c, lambda: SLOW)) for c in owners(5)]
        await until(lambda: len(busy()) == WORKERS)
        await asyncio.to_thread(decoder.close)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, EngineStopped) for result in results)
        with pytest.raises(EngineStopped):
            await decoder.read(Client("a"), lambda: QUICK)

    run(main())
    assert not processes()
    assert not [t for t in threading.enumerate() if t.name.startswith("picture ")]


def test_a_newcomers_picture_gives_way_sooner_to_who_has_answers_here() -> None:
    async def nothing() -> None:
        decoder = Decoder(first_seconds=1000.0)
        decoder.open = lambda: None  # type: ignore[method-assign]  # nothing is taken from the line
        newcomer, here = Client("new"), Client("here", known=True)
        running = {who: _Job(who, bytes, since=time.monotonic()) for who in (newcomer, here)}
        used = dict.fromkeys(running.values(), 300.0)
        waiting = asyncio.ensure_future(decoder.read(Client("another"), bytes))
        await asyncio.sleep(0)
        assert not any(decoder._is_long(job, used) for job in running.values())
        urgent = asyncio.ensure_future(decoder.read(Client("known", known=True), bytes))
        await asyncio.sleep(0)
        assert decoder._is_long(running[newcomer], used)
        assert not decoder._is_long(running[here], used)
        waiting.cancel()
        urgent.cancel()

    run(nothing())
