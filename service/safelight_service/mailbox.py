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

from safelight_service.generation import Event, Progress, Queued

Letter = Event | Future[Event]
"""An event, or one that is still being made in another thread."""

_State = tuple[str, int]
"""What a letter tells the present state of, and of which image; a newer one replaces it."""


class Mailbox:
    """A queue of events that ends, well or with an error."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._letters: deque[tuple[_State | None, Letter]] = deque()
        self._is_closed = False
        self._error: BaseException | None = None
        self._has_mail = asyncio.Event()

    def post(self, event: Event) -> None:
        """Add an event; from any thread."""
        match event:
            case Queued():
                self._add(("queued", 0), event)
            case Progress():
                self._add(("progress", event.image_index), event)
            case _:
                self._add(None, event)

    def post_image(self, image: Future[Event]) -> None:
        """Add an image that is being encoded; from any thread."""
        self._add(None, image)

    def post_preview(self, image_index: int, preview: Future[Event]) -> None:
        """Add a preview that is being encoded, in place of an unread one of that image."""
        self._add(("preview", image_index), preview)

    def close(self, error: BaseException | None = None) -> None:
        """End the mailbox, only once; what has been posted can still be read."""
        with self._lock:
            if not self._is_closed:
                self._is_closed, self._error = True, error
        self._wake()

    async def get(self) -> Event | None:
        """Return the next event; None once all have been read and the end is reached.

        Raises:
            BaseException: the error that the mailbox was closed with.
        """
        while True:
            with self._lock:
                letter = self._letters.popleft()[1] if self._letters else None
                is_closed, error = self._is_closed, self._error
                if letter is None:
                    self._has_mail.clear()
            if isinstance(letter, Future):
                return await asyncio.wrap_future(letter)
            if letter is not None:
                return letter
            if error is not None:
                raise error
            if is_closed:
                return None
            await self._has_mail.wait()

    def _add(self, state: _State | None, letter: Letter) -> None:
        with self._lock:
            if self._is_closed:
                return
            if state is not None:
                self._letters = deque(pair for pair in self._letters if pair[0] != state)
            self._letters.append((state, letter))
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._has_mail.set)
