"""Mailbox: carries a generation's events from the engine's threads to its reader.

Bounded however slow the reader is: of events that only tell the present state the
latest replaces those not read yet. Images are never dropped; there are at most as
many as the request asked for.
"""

import asyncio
import contextlib
import threading
from collections import deque
from concurrent.futures import Future
from typing import Generic, TypeVar

from safelight_service.generation import Event, Progress, Queued

_Summary = TypeVar("_Summary")

Letter = Event | Future[Event]
"""An event, or one that is still being made in another thread."""


class Mailbox(Generic[_Summary]):
    """A queue of events that ends with a summary or an error."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._letters: deque[tuple[str, Letter]] = deque()
        self._outcome: _Summary | BaseException | None = None
        self._has_mail = asyncio.Event()

    def post(self, event: Event) -> None:
        """Add an event; from any thread."""
        is_state = isinstance(event, Queued | Progress)
        self._add(type(event).__name__ if is_state else "", event)

    def post_image(self, image: Future[Event]) -> None:
        """Add an image that is being encoded; from any thread."""
        self._add("", image)

    def post_preview(self, preview: Future[Event]) -> None:
        """Add a preview that is being encoded, in place of an unread one."""
        self._add("Preview", preview)

    def close(self, outcome: _Summary | BaseException) -> None:
        """End the mailbox; what has been posted can still be read."""
        with self._lock:
            if self._outcome is None:
                self._outcome = outcome
        self._wake()

    async def get(self) -> Event | None:
        """Return the next event; None once all have been read and the end is reached.

        Raises:
            BaseException: the error that the mailbox was closed with.
        """
        while True:
            with self._lock:
                letter = self._letters.popleft()[1] if self._letters else None
                outcome = self._outcome
                if letter is None:
                    self._has_mail.clear()
            if isinstance(letter, Future):
                return await asyncio.wrap_future(letter)
            if letter is not None:
                return letter
            if isinstance(outcome, BaseException):
                raise outcome
            if outcome is not None:
                return None
            await self._has_mail.wait()

    @property
    def summary(self) -> _Summary:
        """What the mailbox was closed with, after `get` has returned None."""
        assert self._outcome is not None
        assert not isinstance(self._outcome, BaseException)
        return self._outcome

    def _add(self, kind: str, letter: Letter) -> None:
        with self._lock:
            if self._outcome is not None:
                return
            if kind:
                self._letters = deque(pair for pair in self._letters if pair[0] != kind)
            self._letters.append((kind, letter))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._has_mail.set)
