"""Admission: limits the generations of a caller by model, by rate and by number."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

from safelight_service.auth.tokens import Caller
from safelight_service.core.errors import (
    ModelForbiddenError,
    RateLimitedError,
    TooManyGenerationsError,
)

_WINDOW_S = 60.0


class Quotas(Protocol):
    """Limits of callers that several services share."""

    async def take(self, caller: Caller) -> Callable[[], None]:
        """Count a generation; return a function that counts its end.

        Raises:
            TooManyGenerationsError, RateLimitedError: the caller has met a limit.
        """


class Admission:
    """Counts the generations of each caller, per minute and at once."""

    def __init__(
        self, quotas: Quotas | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`clock` returns seconds and must never go back, as the wall clock may."""
        self._quotas = quotas
        self._clock = clock
        self._starts: defaultdict[str, deque[float]] = defaultdict(deque)
        """Times of the starts of the last minute, by the names of callers with a rate."""
        self._running: Counter[str] = Counter()

    async def take_slot(self, caller: Caller | None) -> ExitStack:
        """Count a generation of a caller at all services, until the stack closes.

        Raises:
            TooManyGenerationsError, RateLimitedError: the caller has met a limit.
        """
        slot = ExitStack()
        if self._quotas is not None and caller is not None:
            slot.callback(await self._quotas.take(caller))
        return slot

    @contextmanager
    def admit(self, caller: Caller | None, model: str) -> Iterator[None]:
        """Admit a generation of a caller, and count it as running until the block ends.

        Raises:
            ModelForbiddenError: the caller's token does not allow the model.
            TooManyGenerationsError: the caller runs as many generations as it may.
            RateLimitedError: the caller has started as many within a minute as it may.
        """
        if caller is None:
            yield
            return
        if not caller.may_use(model):
            raise ModelForbiddenError(model, caller.models or ())
        if caller.concurrent is not None and self._running[caller.name] >= caller.concurrent:
            raise TooManyGenerationsError(caller.name, caller.concurrent)
        if caller.requests_per_minute is not None:
            self._count(caller.name, caller.requests_per_minute)
        self._running[caller.name] += 1
        try:
            yield
        finally:
            self._running[caller.name] -= 1
            if not self._running[caller.name]:
                del self._running[caller.name]

    def _count(self, name: str, per_minute: int) -> None:
        """Count a start, unless the window is full; it slides, and refused starts do not count."""
        now = self._clock()
        starts = self._starts[name]
        while starts and starts[0] <= now - _WINDOW_S:
            starts.popleft()
        if len(starts) >= per_minute:
            raise RateLimitedError(name, per_minute, starts[-per_minute] + _WINDOW_S - now)
        starts.append(now)
