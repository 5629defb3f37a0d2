"""Ongoing calls: the RPCs in progress, drained when the service stops."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safelight_service.core.errors import StoppingError


class OngoingCalls:
    """Calls in progress of one service. Use it on one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._is_over = False

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Track the current task as a call in progress.

        Raises:
            StoppingError: new calls are refused, or the grace time is over.
        """
        if self._is_closed:
            raise StoppingError
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if self._is_over:
                raise StoppingError from None
            raise
        finally:
            self._tasks.discard(task)

    def close(self) -> None:
        """Refuse new calls."""
        self._is_closed = True

    async def finish(self, grace_s: float) -> None:
        """Wait for the calls in progress; cancel them after `grace_s` seconds."""
        if not self._tasks:
            return
        _, left = await asyncio.wait(self._tasks, timeout=grace_s)
        self._is_over = True
        for task in left:
            task.cancel()
