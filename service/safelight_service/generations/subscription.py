"""Subscription: keeps a generation's events for one of its watchers until they are read.

Bounded however slow the reader is: of events that only tell the present state the
latest replaces those not read yet. Images are never dropped; there are at most as
many as the request asked for.
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
"""What an event is about, and which image; a newer one about the same replaces it."""

WAITING: Subject = (Queued, 0)


def subject_of(event: Event) -> Subject:
    """Return what an event is about; only those that tell a present state share a subject."""
    match event:
        case ModelLoading():
            return WAITING
        case Progress() | Preview():
            return type(event), event.image_index
        case Image():
            return type(event), event.index
    return type(event), 0


class Subscription:
    """A queue of events that ends, well or with an error; belongs to one event loop."""

    def __init__(self) -> None:
        self._events: dict[Subject, Event] = {}
        self._is_closed = False
        self._error: BaseException | None = None
        self._has_mail = asyncio.Event()
        self.dropped_preview_count = 0
        """Previews that a newer one has replaced unread."""

    def post(self, event: Event) -> None:
        """Add an event, in place of an unread one about the same."""
        subject = subject_of(event)
        if isinstance(self._events.pop(subject, None), Preview):
            self.dropped_preview_count += 1
        self._events[subject] = event
        self._has_mail.set()

    def close(self, error: BaseException | None = None) -> None:
        """End the subscription; what has been posted can still be read."""
        self._is_closed, self._error = True, error
        self._has_mail.set()

    async def get(self) -> Event | None:
        """Return the next event; None once all have been read and the end is reached.

        Raises:
            BaseException: the error that the subscription was closed with.
        """
        while not self._events and not self._is_closed:
            self._has_mail.clear()
            await self._has_mail.wait()
        if self._events:
            return self._events.pop(next(iter(self._events)))
        if self._error is not None:
            raise self._error
        return None
