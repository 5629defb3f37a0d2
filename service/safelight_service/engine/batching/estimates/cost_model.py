"""CostModel: measured costs of one model at one size, and limits on merging."""

import bisect
from collections.abc import Callable
from dataclasses import dataclass

from safelight_service.engine.batching.estimates.batch_profile import BatchProfile, WidthSearch
from safelight_service.engine.batching.setback import Setback

_WEIGHT = 0.25
"""Weight of the newest measurement in the moving averages."""
_MOST_RISE = 2.0
"""Most that one measurement counts, as a multiple of the average: it may have been disturbed."""
_DOUBT = 0.9
"""Factor of all averages after a refusal that no measurement can correct."""


@dataclass(slots=True)
class Average:
    """A moving average; None before the first measurement."""

    value: float | None = None

    def note(self, measured: float) -> None:
        """Add a measurement."""
        if not self.value:
            self.value = measured
        else:
            self.value += _WEIGHT * (min(measured, _MOST_RISE * self.value) - self.value)

    def doubt(self) -> None:
        """Lower the average a little."""
        if self.value is not None:
            self.value *= _DOUBT


@dataclass(frozen=True, slots=True)
class Demand:
    """Cost of a step. Guidance doubles either the forwards or the rows."""

    forwards_per_step: float
    row_count: int


class CostModel:
    """Measured costs of one model at one size, in seconds. Used by the device thread only.

    Only images of the same cost model share forwards.
    """

    def __init__(
        self,
        size: tuple[int, int],
        most_members: int | None,
        keep_profile: Callable[[BatchProfile], None] = lambda _: None,
    ) -> None:
        self.size = size
        """Width and height in pixels."""
        self.before_steps = Average()
        """All work before the first forward, such as text encoding."""
        self.decode = Average()
        self.check = Average()
        """A safety check, for all images that share it."""
        self._most_members = most_members
        self._widths = WidthSearch()
        self._prepared_cap: int | None = None
        self._keep_profile = keep_profile
        self._room = Setback()
        """Limit on the rows of a forward, after a shortage of memory."""
        self._merging = Setback()
        """Limit on the images of a forward, after merging itself has failed."""
        self._forwards: dict[int, Average] = {}
        self._demands: dict[bool, Demand] = {}

    def recall(self, profile: BatchProfile) -> None:
        """Adopt an earlier profile."""
        self._widths.recall(profile)
        for row_count, seconds in profile.items():
            self._forwards.setdefault(row_count, Average()).note(seconds)

    def set_cap(self, row_count: int) -> None:
        """Merge at most this many rows, since no wider forwards have been prepared."""
        self._prepared_cap = row_count

    def note_forward(self, row_count: int, seconds: float) -> None:
        """Record the seconds of a forward of this many rows."""
        self._forwards.setdefault(row_count, Average()).note(seconds)
        if self._widths.note(row_count, seconds) and self._most_members is None:
            self._keep_profile(self._widths.profile)

    def note_merged(self, member_count: int, row_count: int) -> None:
        """Record that a forward of this many images and rows has succeeded."""
        self._room.allow(row_count)
        self._merging.allow(member_count)

    def note_first(self, demand: Demand, *, is_guided: bool) -> None:
        """Record the demand by an image's first forward, unless one has been measured."""
        self._demands.setdefault(is_guided, demand)

    def note_demand(self, demand: Demand, *, is_guided: bool) -> None:
        """Record the measured demand of an image."""
        self._demands[is_guided] = demand

    def doubt(self) -> None:
        """Lower all costs a little, so that a disturbed measurement cannot refuse work for ever."""
        for average in (self.before_steps, self.decode, self.check, *self._forwards.values()):
            average.doubt()

    def demand(self, *, is_guided: bool) -> Demand:
        """Return the expected demand of a step; a guess before the first similar image."""
        return self._demands.get(is_guided) or Demand(1, 2 if is_guided else 1)

    def knows(self, row_count: int) -> bool:
        """Whether a forward of this many rows has been measured."""
        return row_count in self._forwards

    def forward_s(self, row_count: int) -> float | None:
        """Return the seconds of a forward, interpolated where not measured; None without data."""
        known = self._forwards.get(row_count)
        if known is not None:
            return known.value
        widths = sorted(self._forwards)
        if not widths:
            return None
        place = bisect.bisect_left(widths, row_count)
        if place == len(widths):
            return self._measured(widths[-1]) * row_count / widths[-1]
        upper = widths[place]
        if place == 0:
            return self._measured(upper)
        lower = widths[place - 1]
        share = (row_count - lower) / (upper - lower)
        return self._measured(lower) * (1 - share) + self._measured(upper) * share

    def slowdown(self, row_count: int, more_rows: int) -> float | None:
        """Return the factor by which more rows prolong a forward; None unless it is measured."""
        before_s = self._widths.seconds(row_count)
        after_s = self._widths.seconds(row_count + more_rows)
        return after_s / before_s if before_s and after_s else None

    @property
    def after_steps_s(self) -> float:
        """Seconds from the last step to the picture; unknown parts count as 0."""
        return (self.decode.value or 0) + (self.check.value or 0)

    def halve_room(self, row_count: int) -> None:
        """Merge at most half of these rows for some time, after a shortage of memory."""
        self._room.limit(max(1, row_count // 2))

    def stop_merging(self) -> None:
        """Merge nothing for some time."""
        self._merging.limit(1)

    def has_room(self, member_count: int, row_count: int) -> bool:
        """Whether this many images, with this many rows in total, may share a forward."""
        if member_count == 1:
            return True
        if self._prepared_cap is not None:
            fits = row_count <= self._prepared_cap
        elif self._most_members is None:
            fits = row_count <= self._widths.cap
        else:
            fits = member_count <= self._most_members
        return fits and self._room.allows(row_count) and self._merging.allows(member_count)

    def _measured(self, row_count: int) -> float:
        value = self._forwards[row_count].value
        assert value is not None
        return value
