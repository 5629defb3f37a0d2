"""EventRelay: how what happens to a job comes from the engine's threads to the event loop.

While the loop does not look, or an image is being encoded, it holds what the job has told since:
no more than a few events a step, which whoever is told them keeps or drops.
"""

import asyncio
import contextlib
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from safelight_service.core.events import Event, EventCallback

PendingEvent = Event | Future[Event]
"""An event, or one that is still being made in another thread."""


class EventRelay(Protocol):
    """Where the engine's threads tell what happens to a job."""

    def post(self, pending: PendingEvent) -> None:
        """Tell an event."""

    def close(self, error: BaseException | None = None) -> None:
        """End, with an error where there was one; only the first end counts."""


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class LoopEventRelay:
    """Has events told on the event loop that it was made on, in the order of their posting."""

    def __init__(self, tell: EventCallback) -> None:
        self._loop = asyncio.get_running_loop()
        self._tell = tell
        self._pending_events: deque[PendingEvent | _End] = deque()
        self._is_waking = False
        self.ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        """The error that it ended with, once all has been told; cancel it to be told no more."""

    def post(self, pending: PendingEvent) -> None:
        """Tell an event; from any thread."""
        self._pending_events.append(pending)
        if isinstance(pending, Future):
            pending.add_done_callback(lambda _: self._wake())
        else:
            self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """End after what has been posted; from any thread."""
        self._pending_events.append(_End(error))
        self._wake()

    def _wake(self) -> None:
        """Have pending_events delivered, once for all that come before that."""
        if self._is_waking:
            return
        self._is_waking = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False  # before it looks, so that no pending is overlooked
        try:
            while self._pending_events and not self.ended.done():
                pending = self._pending_events[0]
                if isinstance(pending, Future) and not pending.done():
                    return
                self._pending_events.popleft()
                if isinstance(pending, _End):
                    self.ended.set_result(pending.error)
                else:
                    self._tell(pending.result() if isinstance(pending, Future) else pending)
        except Exception as fault:
            self.ended.set_result(fault)
