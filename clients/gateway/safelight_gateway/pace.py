"""The pace: spreads what each holder begins over time."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

_MAX_HOLDERS = 4096


@dataclass(slots=True)
class _Turn:
    next_s: float


class Pace:
    """Delays what a holder begins beyond its rate, so that others get their turns in between."""

    def __init__(
        self, rate_per_s: float, burst: int = 20, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Let each holder begin `burst` things at once, and then `rate_per_s` in a second."""
        self._interval_s = 1 / rate_per_s
        self._burst_s = burst * self._interval_s
        self._clock = clock
        self._turns: dict[str, _Turn] = {}

    def __len__(self) -> int:
        """Return the number of holders that it remembers."""
        return len(self._turns)

    def delay_s(self, holder: str) -> float:
        """Take the holder's next turn; return the seconds until then, 0 for now."""
        now_s = self._clock()
        if len(self._turns) >= _MAX_HOLDERS:
            self._turns = {k: turn for k, turn in self._turns.items() if turn.next_s > now_s}
        turn = self._turns.setdefault(holder, _Turn(now_s))
        turn.next_s = max(turn.next_s, now_s) + self._interval_s
        return max(0.0, turn.next_s - now_s - self._burst_s)

    async def wait(self, holder: str) -> None:
        """Wait for the holder's next turn."""
        delay_s = self.delay_s(holder)
        if delay_s > 0:
            await asyncio.sleep(delay_s)
