"""Ongoing calls: the RPCs in progress, which a stop or the loss of their token ends."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from safelight_service.auth.tokens import Caller, current_caller
from safelight_service.core.errors import StoppingError, UnauthenticatedError


class OngoingCalls:
    """Calls in progress of one service. Use it on one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[Any], Caller | None] = {}
        """Tasks of the calls, and the callers whose tokens they came with."""
        self._revoked: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._is_over = False

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Track the current task as a call in progress.

        Raises:
            StoppingError: new calls are refused, or the grace time is over.
            UnauthenticatedError: the call's token was revoked meanwhile.
        """
        if self._is_closed:
            raise StoppingError
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = current_caller.get()
        try:
            yield
        except asyncio.CancelledError:
            if self._is_over:
                raise StoppingError from None
            if task in self._revoked:
                raise UnauthenticatedError from None
            raise
        finally:
            del self._tasks[task]
            self._revoked.discard(task)

    def end_revoked(self, callers: Collection[Caller]) -> None:
        """End the calls whose tokens are not those of these callers."""
        valid = {(caller.name, caller.sha256) for caller in callers}
        for task, caller in self._tasks.items():
            is_revoked = caller is not None and (caller.name, caller.sha256) not in valid
            if is_revoked and task not in self._revoked:
                self._revoked.add(task)
                task.cancel()

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
