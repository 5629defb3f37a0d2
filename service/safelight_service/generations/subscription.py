"""Subscription: keeps the events of a generation for one watcher until they are read.

Its size is bounded, however slow the reader is. A newer event about the same subject replaces an
unread one, except for images; of these there are at most as many as the request asked for.
"""

import asyncio

from safelight_service.core.events import (
    Event,
    Image,
    ModelLoading,
    Preview,
    Progress,
    Queued,
)

Subject = tuple[type, int]
"""Kind and image index of events of which a newer one replaces an unread one."""

WAITING: Subject = (Queued, 0)


def subject_of(event: Event) -> Subject:
    """Return the subject of an event; only events that describe a present state share one."""
    match event:
        case ModelLoading():
            return WAITING
        case Progress() | Preview():
            return type(event), event.image_index
        case Image():
            return type(event), event.index
    return type(event), 0


class Subscription:
    """A queue of events with an end, and perhaps an error. Call its methods on one event loop."""

    def __init__(self) -> None:
        self._events: dict[Subject, Event] = {}
        self._is_closed = False
        self._error: BaseException | None = None
        self._has_changed = asyncio.Event()
        self.dropped_preview_count = 0
        """Unread previews that newer ones have replaced."""

    def post(self, event: Event) -> None:
        """Add an event; replace an unread one about the same subject."""
        subject = subject_of(event)
        if isinstance(self._events.pop(subject, None), Preview):
            self.dropped_preview_count += 1
        self._events[subject] = event
        self._has_changed.set()

    def close(self, error: BaseException | None = None) -> None:
        """End the subscription; posted events can still be read."""
        self._is_closed, self._error = True, error
        self._has_changed.set()

    async def get(self) -> Event | None:
        """Wait for the next event and return it; None at the end.

        Raises:
            BaseException: the error that the subscription was closed with, after all events.
        """
        if await self._wait():
            return self._events.pop(next(iter(self._events)))
        return None

    async def get_all(self) -> tuple[Event, ...] | None:
        """Wait for events and return all unread ones; None at the end.

        Raises:
            BaseException: the error that the subscription was closed with, after all events.
        """
        if await self._wait():
            events = tuple(self._events.values())
            self._events.clear()
            return events
        return None

    async def _wait(self) -> bool:
        """Wait for an event or the end; return whether there are events."""
        while not self._events and not self._is_closed:
            self._has_changed.clear()
            await self._has_changed.wait()
        if not self._events and self._error is not None:
            raise self._error
        return bool(self._events)
