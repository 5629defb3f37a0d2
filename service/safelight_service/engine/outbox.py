"""Outbox: how what happens to a job comes from the engine's threads to the event loop.

While the loop does not look, or an image is being encoded, it holds what the job has told since:
no more than a few events a step, which whoever is told them keeps or drops.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from safelight_service.generation import Event

Tell = Callable[[Event], None]
"""Is called on the event loop with each event."""

Letter = Event | Future[Event]
"""An event, or one that is still being made in another thread."""


class Outbox(Protocol):
    """Where the engine's threads tell what happens to a job."""

    def post(self, letter: Letter) -> None:
        """Tell an event."""

    def close(self, error: BaseException | None = None) -> None:
        """End, with an error where there was one; only the first end counts."""


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class LoopOutbox:
    """Has events told on the event loop that it was made on, in the order of their posting."""

    def __init__(self, tell: Tell) -> None:
        self._loop = asyncio.get_running_loop()
        self._tell = tell
        self._letters: deque[Letter | _End] = deque()
        self._is_waking = False
        self.ended: asyncio.Future[BaseException | None] = self._loop.create_future()
        """The error that it ended with, once all has been told; cancel it to be told no more."""

    def post(self, letter: Letter) -> None:
        """Tell an event; from any thread."""
        self._letters.append(letter)
        if isinstance(letter, Future):
            letter.add_done_callback(lambda _: self._wake())
        else:
            self._wake()

    def close(self, error: BaseException | None = None) -> None:
        """End after what has been posted; from any thread."""
        self._letters.append(_End(error))
        self._wake()

    def _wake(self) -> None:
        """Have letters delivered, once for all that come before that."""
        if self._is_waking:
            return
        self._is_waking = True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._is_waking = False  # before it looks, so that no letter is overlooked
        try:
            while self._letters and not self.ended.done():
                letter = self._letters[0]
                if isinstance(letter, Future) and not letter.done():
                    return
                self._letters.popleft()
                if isinstance(letter, _End):
                    self.ended.set_result(letter.error)
                else:
                    self._tell(letter.result() if isinstance(letter, Future) else letter)
        except Exception as fault:
            self.ended.set_result(fault)
