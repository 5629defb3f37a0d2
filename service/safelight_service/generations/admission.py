"""Admission: limits the generations of a caller by model, by rate and by number."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from safelight_service.auth.tokens import Caller
from safelight_service.core.errors import (
    ModelForbiddenError,
    RateLimitedError,
    TooManyGenerationsError,
)

_WINDOW_S = 60.0


class Admission:
    """Counts the generations of each caller, per minute and at once.

    `clock` returns seconds and must never go back, as the wall clock may.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._starts: defaultdict[str, deque[float]] = defaultdict(deque)
        """Times of the starts of the last minute, by the names of callers with a rate."""
        self._running: Counter[str] = Counter()

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
