"""A mailbox is bounded for any reader, and loses nothing that matters."""

import asyncio

import pytest

from safelight_service.generation import Event, Image, Preview, Progress, Queued
from safelight_service.mailbox import Mailbox


def progress(step: int) -> Progress:
    return Progress(step, 20, 0, 0.0, 0.0)


def preview(step: int) -> Preview:
    return Preview(0, step, "image/jpeg", 1, 1, b"")


def image(index: int) -> Image:
    return Image(index, "image/png", 1, 1, 0, False, "", b"png")


async def drain(mailbox: Mailbox) -> list[Event]:
    events = []
    while (event := await mailbox.get()) is not None:
        events.append(event)
    return events


def test_a_slow_reader_gets_the_latest_state_and_every_image() -> None:
    async def read_late() -> tuple[list[Event], int]:
        mailbox = Mailbox()
        mailbox.post(Queued(2, None))
        mailbox.post(Queued(1, None))
        for index in range(2):
            for step in range(1, 21):
                mailbox.post(progress(step))
                mailbox.post(preview(step))
            mailbox.post(image(index))
        mailbox.close()
        return await drain(mailbox), mailbox.dropped_preview_count

    events, dropped_count = asyncio.run(read_late())
    assert dropped_count == 39  # of 40, unread
    assert events == [Queued(1, None), image(0), progress(20), preview(20), image(1)]


def test_a_quick_reader_gets_everything_in_order() -> None:
    async def read_at_once() -> list[Event | None]:
        mailbox = Mailbox()
        events = []
        for step in range(1, 4):
            mailbox.post(progress(step))
            events.append(await mailbox.get())
        return events

    assert asyncio.run(read_at_once()) == [progress(1), progress(2), progress(3)]


def test_a_waiting_reader_is_told_of_events_and_of_the_end() -> None:
    async def read_first() -> list[Event]:
        mailbox = Mailbox()
        reading = asyncio.ensure_future(drain(mailbox))
        await asyncio.sleep(0)
        mailbox.post(progress(1))
        await asyncio.sleep(0)
        assert not reading.done()
        mailbox.close()
        return await reading

    assert asyncio.run(read_first()) == [progress(1)]


def test_what_was_posted_before_an_error_is_read_first() -> None:
    async def read_to_the_error() -> None:
        mailbox = Mailbox()
        mailbox.post(progress(1))
        mailbox.close(ValueError("late"))
        assert await mailbox.get() == progress(1)
        with pytest.raises(ValueError, match="late"):
            await mailbox.get()

    asyncio.run(read_to_the_error())
