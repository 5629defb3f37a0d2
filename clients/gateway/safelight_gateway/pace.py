"""The pace: spreads what each holder begins over time."""

import asyncio
import math
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
        self,
        rate_per_s: float,
        burst: int = 20,
        *,
        longest_s: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let each holder begin `burst` things at once, and then `rate_per_s` in a second.

        Refuse turns that are more than `longest_s` seconds away.
        """
        self._interval_s = 1 / rate_per_s
        self._burst_s = burst * self._interval_s
        self._longest_s = longest_s
        self._clock = clock
        self._turns: dict[str, _Turn] = {}

    def __len__(self) -> int:
        """Return the number of holders that it remembers."""
        return len(self._turns)

    def delay_s(self, holder: str) -> float | None:
        """Take the holder's next turn; return the seconds until then, 0 for now.

        Returns None, and takes no turn, if the next one is too far away.
        """
        now_s = self._clock()
        if len(self._turns) >= _MAX_HOLDERS:
            self._turns = {k: turn for k, turn in self._turns.items() if turn.next_s > now_s}
        turn = self._turns.setdefault(holder, _Turn(now_s))
        next_s = max(turn.next_s, now_s) + self._interval_s
        delay_s = max(0.0, next_s - now_s - self._burst_s)
        if delay_s > self._longest_s:
            return None
        turn.next_s = next_s
        return delay_s

    async def wait(self, holder: str) -> bool:
        """Wait for the holder's next turn; return False at once if that is too far away."""
        delay_s = self.delay_s(holder)
        if delay_s:
            await asyncio.sleep(delay_s)
        return delay_s is not None
