"""Event relay: posts of threads reach the event loop completely, in order, and then the end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest

from safelight_service.core.events import Event, Image, Progress
from safelight_service.engine.event_relay import LoopEventRelay

IMAGE = Image(0, "image/png", 1, 1, 0, False, "", b"png")
END: Any = "the end"


def progress(step: int) -> Progress:
    return Progress(step, 20, 0, 0.0, 0.0)


def listen(act: Callable[[LoopEventRelay, list[Any]], Awaitable[None]]) -> list[Any]:
    """Return the delivered events, and the end with its error, if it came."""
    received: list[Any] = []

    async def run() -> None:
        relay = LoopEventRelay(received.append)
        relay.ended.add_done_callback(lambda ended: received.extend([END, ended.result()]))
        await act(relay, received)
        await asyncio.sleep(0)

    asyncio.run(run())
    return received


def test_events_of_other_threads_arrive_in_order() -> None:
    async def act(relay: LoopEventRelay, received: list[Any]) -> None:
        def post() -> None:
            for step in range(1000):
                relay.post(progress(step))
            relay.close()

        await asyncio.gather(asyncio.to_thread(post), relay.ended)

    assert listen(act) == [*map(progress, range(1000)), END, None]


def test_nothing_overtakes_an_image_that_is_still_being_encoded() -> None:
    async def act(relay: LoopEventRelay, received: list[Any]) -> None:
        encoding: Future[Event] = Future()
        relay.post(progress(1))
        relay.post(encoding)
        relay.post(progress(2))
        relay.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert received == [progress(1)]
        await asyncio.to_thread(encoding.set_result, IMAGE)
        await relay.ended

    assert listen(act) == [progress(1), IMAGE, progress(2), END, None]


def test_only_the_first_end_counts() -> None:
    error = ValueError("first")

    async def act(relay: LoopEventRelay, received: list[Any]) -> None:
        relay.close(error)
        relay.post(progress(1))
        relay.close()
        await relay.ended

    assert listen(act) == [END, error]


def test_an_image_that_cannot_be_encoded_is_the_end() -> None:
    error = ValueError("no such format")

    async def act(relay: LoopEventRelay, received: list[Any]) -> None:
        encoding: Future[Event] = Future()
        encoding.set_exception(error)
        relay.post(encoding)
        relay.close()
        await relay.ended

    assert listen(act) == [END, error]


def test_a_listener_that_fails_is_the_end() -> None:
    """No caller waits for an end that is never delivered."""
    error = ValueError("a listener's")

    async def run() -> BaseException | None:
        def fail(event: Event) -> None:
            raise error

        relay = LoopEventRelay(fail)
        relay.post(progress(1))
        relay.close()
        return await relay.ended

    assert asyncio.run(run()) is error


def test_no_event_arrives_after_deliveries_are_stopped() -> None:
    received: list[Any] = []

    async def run() -> None:
        relay = LoopEventRelay(received.append)
        relay.post(progress(1))
        relay.ended.cancel()
        relay.close()
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert received == []


def test_posting_wakes_the_loop_once_for_all_that_comes_before_it_looks() -> None:
    """Each wake-up takes the interpreter's lock from the device thread."""

    async def run() -> int:
        loop, count = asyncio.get_running_loop(), 0
        wake = loop.call_soon_threadsafe

        def count_waking(*arguments: Any) -> asyncio.Handle:
            nonlocal count
            count += 1
            return wake(*arguments)

        relay = LoopEventRelay(lambda _: None)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(loop, "call_soon_threadsafe", count_waking)
            for step in range(10):
                relay.post(progress(step))
            relay.close()
        await relay.ended
        return count

    assert asyncio.run(run()) == 1


def test_posting_after_the_loop_is_closed_does_no_harm() -> None:
    async def make() -> LoopEventRelay:
        return LoopEventRelay(lambda _: None)

    relay = asyncio.run(make())
    poster = threading.Thread(target=relay.post, args=[progress(1)])
    poster.start()
    poster.join()
    relay.close()
