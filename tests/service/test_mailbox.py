"""A mailbox is bounded for any reader, and loses nothing that matters."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Any

import pytest

from safelight_service.generation import Event, Image, Preview, Progress, Queued
from safelight_service.mailbox import Mailbox


def progress(step: int) -> Progress:
    return Progress(step, 20, 0, 0.0, 0.0)


def preview(step: int) -> Preview:
    return Preview(0, step, "image/jpeg", 1, 1, b"")


def image(index: int) -> Image:
    return Image(index, "image/png", 1, 1, 0, False, "", b"png")


def done(event: Event) -> Future[Event]:
    future: Future[Event] = Future()
    future.set_result(event)
    return future


async def drain(mailbox: Mailbox) -> list[Event]:
    events = []
    while (event := await mailbox.get()) is not None:
        events.append(event)
    return events


def test_a_slow_reader_gets_the_latest_state_and_every_image() -> None:
    async def read_late() -> tuple[list[Event], int]:
        mailbox = Mailbox(asyncio.get_running_loop())
        mailbox.post(Queued(2, None))
        mailbox.post(Queued(1, None))
        for index in range(2):
            for step in range(1, 21):
                mailbox.post(progress(step))
                mailbox.post_preview(0, done(preview(step)))
            mailbox.post_image(index, done(image(index)))
        mailbox.close()
        return await drain(mailbox), mailbox.dropped_preview_count

    events, dropped_count = asyncio.run(read_late())
    assert dropped_count == 39  # of 40, unread
    assert events == [Queued(1, None), image(0), progress(20), preview(20), image(1)]


def test_a_quick_reader_gets_everything_in_order() -> None:
    async def read_at_once() -> list[Event | None]:
        mailbox = Mailbox(asyncio.get_running_loop())
        events = []
        for step in range(1, 4):
            mailbox.post(progress(step))
            events.append(await mailbox.get())
        return events

    assert asyncio.run(read_at_once()) == [progress(1), progress(2), progress(3)]


def test_a_waiting_reader_is_woken_from_another_thread() -> None:
    async def read_first() -> Event | None:
        mailbox = Mailbox(asyncio.get_running_loop())
        reading = asyncio.ensure_future(mailbox.get())
        await asyncio.to_thread(mailbox.post, progress(1))
        return await reading

    assert asyncio.run(read_first()) == progress(1)


def test_an_image_that_is_still_being_encoded_is_waited_for() -> None:
    async def read_early() -> Event | None:
        mailbox = Mailbox(asyncio.get_running_loop())
        encoding: Future[Event] = Future()
        mailbox.post_image(0, encoding)
        reading = asyncio.ensure_future(mailbox.get())
        await asyncio.to_thread(encoding.set_result, image(0))
        return await reading

    assert asyncio.run(read_early()) == image(0)


def test_what_was_posted_before_an_error_is_read_first() -> None:
    async def read_to_the_error() -> None:
        mailbox = Mailbox(asyncio.get_running_loop())
        mailbox.post(progress(1))
        mailbox.close(ValueError("late"))
        mailbox.close()  # too late to matter
        assert await mailbox.get() == progress(1)
        with pytest.raises(ValueError, match="late"):
            await mailbox.get()

    asyncio.run(read_to_the_error())


def test_who_is_woken_does_not_have_to_wait_for_who_has_posted() -> None:
    """Both want the interpreter's lock as well, and would hand that over twice for each event."""

    async def read_while_posting() -> Event | None:
        loop = asyncio.get_running_loop()
        mailbox = Mailbox(loop)
        is_read = threading.Event()
        wake = loop.call_soon_threadsafe

        def wake_and_wait(*arguments: Any) -> asyncio.Handle:
            handle = wake(*arguments)
            assert is_read.wait(5)
            return handle

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(loop, "call_soon_threadsafe", wake_and_wait)
            poster = threading.Thread(target=mailbox.post, args=[progress(1)])
            poster.start()
            event = await mailbox.get()
            is_read.set()
            poster.join()
        return event

    assert asyncio.run(read_while_posting()) == progress(1)
