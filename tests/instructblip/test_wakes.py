"""Event loops are woken once for many events, and never after they are closed."""

import asyncio
import threading

from instructblip.wakes import together, wake


def test_all_inside_is_one_call() -> None:
    async def read() -> int:
        loop, calls = asyncio.get_running_loop(), []
        real = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: calls.append(args) or real(*args)  # type: ignore
        events = [asyncio.Event() for _ in range(5)]

        def work() -> None:
            with together():
                for event in events:
                    wake(loop, event)
                assert not calls

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in events)), 90)
        thread.join()
        return len(calls)

    assert asyncio.run(read()) == 1


def test_outside_each_is_woken_at_once() -> None:
    async def read() -> bool:
        event = asyncio.Event()
        threading.Thread(target=wake, args=(asyncio.get_running_loop(), event)).start()
        return await asyncio.wait_for(event.wait(), 90)

    assert asyncio.run(read())


def test_a_closed_loop_is_nobody_to_wake() -> None:
    loop = asyncio.new_event_loop()
    event = asyncio.Event()
    loop.close()
    wake(loop, event)
    with together():
        wake(loop, event)
    assert not event.is_set()


def test_an_error_inside_wakes_all_the_same() -> None:
    async def read() -> None:
        event = asyncio.Event()
        try:
            with together():
                wake(asyncio.get_running_loop(), event)
                raise ValueError
        except ValueError:
            pass
        await asyncio.wait_for(event.wait(), 90)

    asyncio.run(read())
