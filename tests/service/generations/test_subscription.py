"""Subscription: bounded for any reader, without losing important events."""

import asyncio

import pytest

from safelight_service.core.events import (
    Event,
    Image,
    Preview,
    Progress,
    Queued,
)
from safelight_service.generations.subscription import Subscription


def progress(step: int) -> Progress:
    return Progress(step, 20, 0, 0.0, 0.0)


def preview(step: int) -> Preview:
    return Preview(0, step, "image/jpeg", 1, 1, b"")


def image(index: int) -> Image:
    return Image(index, "image/png", 1, 1, 0, False, "", b"png")


async def drain(subscription: Subscription) -> list[Event]:
    events = []
    while (event := await subscription.get()) is not None:
        events.append(event)
    return events


def test_a_slow_reader_gets_the_latest_state_and_every_image() -> None:
    async def read_late() -> tuple[list[Event], int]:
        subscription = Subscription()
        subscription.post(Queued(2, None))
        subscription.post(Queued(1, None))
        for index in range(2):
            for step in range(1, 21):
                subscription.post(progress(step))
                subscription.post(preview(step))
            subscription.post(image(index))
        subscription.close()
        return await drain(subscription), subscription.dropped_preview_count

    events, dropped_count = asyncio.run(read_late())
    assert dropped_count == 39  # of 40, unread
    assert events == [Queued(1, None), image(0), progress(20), preview(20), image(1)]


def test_a_quick_reader_gets_everything_in_order() -> None:
    async def read_at_once() -> list[Event | None]:
        subscription = Subscription()
        events = []
        for step in range(1, 4):
            subscription.post(progress(step))
            events.append(await subscription.get())
        return events

    assert asyncio.run(read_at_once()) == [progress(1), progress(2), progress(3)]


def test_a_waiting_reader_gets_events_and_the_end() -> None:
    async def read_first() -> list[Event]:
        subscription = Subscription()
        reading = asyncio.ensure_future(drain(subscription))
        await asyncio.sleep(0)
        subscription.post(progress(1))
        await asyncio.sleep(0)
        assert not reading.done()
        subscription.close()
        return await reading

    assert asyncio.run(read_first()) == [progress(1)]


def test_what_was_posted_before_an_error_is_read_first() -> None:
    async def read_to_the_error() -> None:
        subscription = Subscription()
        subscription.post(progress(1))
        subscription.close(ValueError("late"))
        assert await subscription.get() == progress(1)
        with pytest.raises(ValueError, match="late"):
            await subscription.get()

    asyncio.run(read_to_the_error())
