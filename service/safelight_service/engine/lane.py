"""Lane: what is known of one model at one size, and so what its generations will take."""

import bisect
from dataclasses import dataclass

from safelight_service.engine.widths import Profile, choose_cap

_WEIGHT = 0.25
"""Weight of the newest measurement in the moving averages."""


@dataclass(slots=True)
class Average:
    """A moving average; None before the first measurement."""

    value: float | None = None

    def note(self, measured: float) -> None:
        """Take a measurement in."""
        before = measured if self.value is None else self.value
        self.value = before + _WEIGHT * (measured - before)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a step asks for: forwards, and rows in each; a guided step has two of one or other."""

    forwards_per_step: float
    row_count: int


class Lane:
    """The measured costs of one model at one size, in seconds; belongs to the device thread.

    Generations of one lane can be merged, if the rest of their calls allows it.
    """

    def __init__(self, size: tuple[int, int], most_members: int | None) -> None:
        self.size = size
        """Width and height in pixels."""
        self._most_members = most_members
        self._row_cap: int | None = None
        self.before_steps = Average()
        self.after_steps = Average()
        self._forwards: dict[int, Average] = {}
        self._demands: dict[bool, Demand] = {}

    @property
    def wants_profile(self) -> bool:
        """Whether the width is to be measured, and has not been."""
        return self._most_members is None and self._row_cap is None

    def set_profile(self, profile: Profile) -> None:
        """Take the width from measurements."""
        if self._most_members is None:
            self._row_cap = choose_cap(profile)
        for row_count, seconds in profile.items():
            self.note_forward(row_count, seconds)

    def set_cap(self, row_count: int) -> None:
        """Merge so many rows and no more: no wider forwards have been prepared."""
        self._row_cap = row_count

    def note_forward(self, row_count: int, seconds: float) -> None:
        """Learn from a forward of so many rows."""
        self._forwards.setdefault(row_count, Average()).note(seconds)

    def note_demand(self, demand: Demand, *, is_guided: bool) -> None:
        """Learn from a generation that has ended."""
        self._demands[is_guided] = demand

    def demand(self, *, is_guided: bool) -> Demand:
        """What a step will ask for; guessed until a generation like it has ended."""
        return self._demands.get(is_guided) or Demand(1, 2 if is_guided else 1)

    def forward_s(self, row_count: int) -> float | None:
        """Seconds of a forward, as measured or between what was measured; None without any."""
        widths = sorted(self._forwards)
        if not widths:
            return None
        place = bisect.bisect_left(widths, row_count)
        if place == len(widths):
            return self._measured(widths[-1]) * row_count / widths[-1]
        upper = widths[place]
        if upper == row_count or place == 0:
            return self._measured(upper)
        lower = widths[place - 1]
        share = (row_count - lower) / (upper - lower)
        return self._measured(lower) * (1 - share) + self._measured(upper) * share

    def halve_cap(self, row_count: int) -> None:
        """Merge half of what the device had no memory for."""
        self._row_cap = max(1, row_count // 2)

    def merge_no_more(self) -> None:
        """Run one generation at a time from now on."""
        self._most_members = 1

    def has_room(self, member_count: int, row_count: int) -> bool:
        """Whether so many generations may be merged, of so many rows in all."""
        if member_count == 1:
            return True
        return member_count <= (self._most_members or member_count) and row_count <= (
            self._row_cap or row_count
        )

    def _measured(self, row_count: int) -> float:
        value = self._forwards[row_count].value
        assert value is not None
        return value
