"""Admission: which generations a caller may start, by model, by rate and by number."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from safelight_service.auth.tokens import Caller
from safelight_service.core.errors import (
    ModelForbiddenError,
    RateLimitedError,
    TooManyGenerationsError,
)


class Admission:
    """What each caller has asked for within a minute, and what it runs."""

    def __init__(self) -> None:
        self._rates = MovingWindowRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()

    @contextmanager
    def admit(self, caller: Caller | None, model: str) -> Iterator[None]:
        """Count a generation of the caller's, as running until the block is left.

        Raises:
            ModelForbiddenError: the caller may not use the model.
            TooManyGenerationsError: it runs as many as it may.
            RateLimitedError: it has asked for as many within a minute as it may.
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

    def _count(self, name: str, per_minute: int) -> None:
        rate = RateLimitItemPerMinute(per_minute)
        if not self._rates.hit(rate, name):
            free_at = self._rates.get_window_stats(rate, name).reset_time
            raise RateLimitedError(name, per_minute, max(0.0, free_at - time.time()))
