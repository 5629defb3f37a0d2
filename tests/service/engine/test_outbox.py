"""What threads post is told on the event loop, all of it and in order, and then how it ended."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest

from safelight_service.engine.outbox import LoopOutbox
from safelight_service.generation import Event, Image, Progress

IMAGE = Image(0, "image/png", 1, 1, 0, False, "", b"png")
END: Any = "the end"


def progress(step: int) -> Progress:
    return Progress(step, 20, 0, 0.0, 0.0)


def listen(act: Callable[[LoopOutbox, list[Any]], Awaitable[None]]) -> list[Any]:
    """Return what was told, and the end, if there was one, with its error."""
    told: list[Any] = []

    async def run() -> None:
        outbox = LoopOutbox(told.append)
        outbox.ended.add_done_callback(lambda ended: told.extend([END, ended.result()]))
        await act(outbox, told)
        await asyncio.sleep(0)

    asyncio.run(run())
    return told


def test_all_that_other_threads_post_is_told_in_order() -> None:
    async def act(outbox: LoopOutbox, told: list[Any]) -> None:
        def post() -> None:
            for step in range(1000):
                outbox.post(progress(step))
            outbox.close()

        await asyncio.gather(asyncio.to_thread(post), outbox.ended)

    assert listen(act) == [*map(progress, range(1000)), END, None]


def test_nothing_overtakes_an_image_that_is_still_being_encoded() -> None:
    async def act(outbox: LoopOutbox, told: list[Any]) -> None:
        encoding: Future[Event] = Future()
        outbox.post(progress(1))
        outbox.post(encoding)
        outbox.post(progress(2))
        outbox.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert told == [progress(1)]
        await asyncio.to_thread(encoding.set_result, IMAGE)
        await outbox.ended

    assert listen(act) == [progress(1), IMAGE, progress(2), END, None]


def test_only_the_first_end_counts() -> None:
    error = ValueError("first")

    async def act(outbox: LoopOutbox, told: list[Any]) -> None:
        outbox.close(error)
        outbox.post(progress(1))
        outbox.close()
        await outbox.ended

    assert listen(act) == [END, error]


def test_an_image_that_cannot_be_encoded_is_the_end() -> None:
    error = ValueError("no such format")

    async def act(outbox: LoopOutbox, told: list[Any]) -> None:
        encoding: Future[Event] = Future()
        encoding.set_exception(error)
        outbox.post(encoding)
        outbox.close()
        await outbox.ended

    assert listen(act) == [END, error]


def test_a_listener_that_fails_is_the_end() -> None:
    """Nobody is left waiting for an end that was never told."""
    error = ValueError("a listener's")

    async def run() -> BaseException | None:
        def fail(event: Event) -> None:
            raise error

        outbox = LoopOutbox(fail)
        outbox.post(progress(1))
        outbox.close()
        return await outbox.ended

    assert asyncio.run(run()) is error


def test_who_wants_to_hear_no_more_is_told_no_more() -> None:
    told: list[Any] = []

    async def run() -> None:
        outbox = LoopOutbox(told.append)
        outbox.post(progress(1))
        outbox.ended.cancel()
        outbox.close()
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert told == []


def test_posting_wakes_the_loop_once_for_all_that_comes_before_it_looks() -> None:
    """Each waking takes the interpreter's lock from the device thread."""

    async def run() -> int:
        loop, count = asyncio.get_running_loop(), 0
        wake = loop.call_soon_threadsafe

        def count_waking(*arguments: Any) -> asyncio.Handle:
            nonlocal count
            count += 1
            return wake(*arguments)

        outbox = LoopOutbox(lambda _: None)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(loop, "call_soon_threadsafe", count_waking)
            for step in range(10):
                outbox.post(progress(step))
            outbox.close()
        await outbox.ended
        return count

    assert asyncio.run(run()) == 1


def test_posting_after_the_loop_is_closed_harms_nobody() -> None:
    async def make() -> LoopOutbox:
        return LoopOutbox(lambda _: None)

    outbox = asyncio.run(make())
    poster = threading.Thread(target=outbox.post, args=[progress(1)])
    poster.start()
    poster.join()
    outbox.close()
