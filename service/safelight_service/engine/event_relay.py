"""EventRelay: carries the events of a job from the engine's threads to the event loop.

It queues events while the loop is busy or an image is being encoded. The queue grows by a few
events a step; the receiver bounds them.
"""

import asyncio
import contextlib
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from safelight_service.core.events import Event, EventCallback

PendingEvent = Event | Future[Event] | Future[Event | None]
"""An event, or the future of one that another thread makes, or None if it makes none."""


class EventRelay(Protocol):
    """Takes the events of a job from the engine's threads."""

    def post(self, event: PendingEvent) -> None:
        """Queue an event for delivery."""

    def close(self, error: BaseException | None = None) -> None:
        """End after the queued events, with the job's error if it failed; repeats do nothing."""


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class LoopEventRelay:
    """Calls `on_event` with each event in order, on the event loop that the relay was made on."""

    def __init__(self, on_event: EventCallback) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._queue: deque[PendingEvent | _End] = deque()
        self._is_waking = False
        self.ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        """The job's error or None, set after the last event; cancel it to stop deliveries."""

    def post(self, event: PendingEvent) -> None:
        """Queue an event for delivery; safe to call from any thread."""
        self._queue.append(event)
        if isinstance(event, Future):
            event.add_done_callback(lambda _: self._wake())
        else:
            self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """End after the queued events; safe to call from any thread."""
        self._queue.append(_End(error))
        self._wake()

    def _wake(self) -> None:
        """Schedule one delivery on the loop, however many events are queued before it runs."""
        if self._is_waking:
            return
        self._is_waking = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False  # first, so that a later event schedules a delivery again
        try:
            while self._queue and not self.ended.done():
                first = self._queue[0]
                if isinstance(first, Future) and not first.done():
                    return
                self._queue.popleft()
                if isinstance(first, _End):
                    self.ended.set_result(first.error)
                else:
                    event = first.result() if isinstance(first, Future) else first
                    if event is not None:
                        self._on_event(event)
        except Exception as fault:
            self.ended.set_result(fault)
