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

from safelight_service.generation import Event, Image, ModelLoading, Preview, Progress, Queued

Letter = Event | Future[Event]
"""An event, or one that is still being made in another thread."""

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


class Mailbox:
    """A queue of events that ends, well or with an error; made and read on its event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread_id = threading.get_ident()
        self._lock = threading.Lock()
        self._letters: deque[tuple[Subject, Letter]] = deque()
        self._is_closed = False
        self._error: BaseException | None = None
        self._has_mail = asyncio.Event()
        self._is_waking = False
        self.dropped_preview_count = 0
        """Previews that a newer one has replaced unread."""

    def post(self, event: Event) -> None:
        """Add an event; from any thread."""
        self._add(subject_of(event), event)

    def post_image(self, image_index: int, image: Future[Event]) -> None:
        """Add an image that is being encoded; from any thread."""
        self._add((Image, image_index), image)

    def post_preview(self, image_index: int, preview: Future[Event]) -> None:
        """Add a preview that is being encoded, in place of an unread one of that image."""
        self._add((Preview, image_index), preview)

    def close(self, error: BaseException | None = None) -> None:
        """End the mailbox, only once; what has been posted can still be read."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed, self._error = True, error
        self._wake()

    async def wait(self) -> None:
        """Return when there is an event, or the end, to be had; may be cancelled."""
        while True:
            with self._lock:
                if self._letters or self._is_closed:
                    return
                self._has_mail.clear()
                self._is_waking = False
            await self._has_mail.wait()

    async def get(self) -> Event | None:
        """Return the next event; None once all have been read and the end is reached.

        Raises:
            BaseException: the error that the mailbox was closed with.
        """
        await self.wait()
        with self._lock:
            letter = self._letters.popleft()[1] if self._letters else None
        if letter is None and self._error is not None:
            raise self._error
        if isinstance(letter, Future):
            return await asyncio.wrap_future(letter)
        return letter

    def _add(self, subject: Subject, letter: Letter) -> None:
        with self._lock:
            if self._is_closed:
                return
            kept = deque(pair for pair in self._letters if pair[0] != subject)
            if subject[0] is Preview:
                self.dropped_preview_count += len(self._letters) - len(kept)
            self._letters = kept
            self._letters.append((subject, letter))
        self._wake()

    def _wake(self) -> None:
        """Wake the reader, once for all that comes before it looks.

        Not with the lock held, which is the first thing that the reader asks for. So now and then
        it is woken once too often, which does no harm: it looks, and waits again.
        """
        if self._is_waking:
            return
        self._is_waking = True
        if threading.get_ident() == self._thread_id:
            self._has_mail.set()
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._has_mail.set)
