"""Admission: limits the generations of a caller by model, by rate and by number."""

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
    """Counts the generations of each caller, per minute and at once."""

    def __init__(self) -> None:
        self._rates = MovingWindowRateLimiter(MemoryStorage())
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

    def _count(self, name: str, per_minute: int) -> None:
        rate = RateLimitItemPerMinute(per_minute)
        if not self._rates.hit(rate, name):
            free_at = self._rates.get_window_stats(rate, name).reset_time
            raise RateLimitedError(name, per_minute, max(0.0, free_at - time.time()))
