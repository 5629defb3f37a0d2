"""BatchProfile: seconds of a forward by its rows, and the width that they suggest.

Merging pays until the device is saturated; beyond that it only delays every image. So the cap on
rows is twice the widest measured width while that one still gains throughput over half of it.
After that it is the smallest width that reaches most of the best throughput. No forward is run
only to be measured. Profiles are kept on disk.
"""

import json
import math
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import structlog

_log = structlog.get_logger()

ENOUGH = 0.98
"""Share of the best throughput; beyond it, wider forwards cost more latency than they gain."""

MOST_ROWS = 32
_RUNS = 3
"""Forwards of a width after its first one that make it count as measured."""

_TRIAL_EVERY = 200
"""Forwards near the cap between two trials of wider ones."""

_LEAST_GAIN = 1.02
"""Least ratio of throughput to that of half the width for trying wider forwards."""

BatchProfile = Mapping[int, float]
"""Seconds of the fastest forward, by rows."""


class WidthSearch:
    """Searches the best number of rows for the forwards of one model and size."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._profile: dict[int, float] = {}
        self._best_cap = 0
        self._trial_cap = 0
        self._until_trial = _TRIAL_EVERY
        self._trials_left = 0

    @property
    def cap(self) -> int:
        """Most rows of a merged forward, at present."""
        return max(self._best_cap, self._trial_cap)

    @property
    def profile(self) -> BatchProfile:
        """Profile of the widths that count as measured."""
        return {rows: s for rows, s in self._profile.items() if self._counts[rows] > _RUNS}

    def seconds(self, row_count: int) -> float | None:
        """Return the seconds of the fastest forward of a width; None unless it is measured."""
        is_measured = self._counts[row_count] > _RUNS
        return self._profile[row_count] if is_measured else None

    def recall(self, profile: BatchProfile) -> None:
        """Adopt the widths of an earlier profile as measured."""
        self._profile |= profile
        self._counts.update(dict.fromkeys(profile, _RUNS + 1))
        self._choose()

    def note(self, row_count: int, seconds: float) -> bool:
        """Record a forward's seconds; return whether the profile or the cap has changed.

        Ignores the first forward of a width, which may compile or tune for a minute.
        """
        self._count_down(row_count)
        self._counts[row_count] += 1
        if self._counts[row_count] == 1:
            return False
        known = self._profile.get(row_count, math.inf)
        self._profile[row_count] = min(known, seconds)
        if self._counts[row_count] <= _RUNS:
            return False
        before = self._best_cap
        self._choose()
        return self._counts[row_count] == _RUNS + 1 or self._best_cap != before

    def _count_down(self, row_count: int) -> None:
        """Schedule trials of wider forwards, in case a disturbed one has lowered the cap."""
        if self._trial_cap > self._best_cap:
            self._trials_left -= row_count > self._best_cap
            if self._trials_left == 0:
                self._trial_cap = 0
        elif row_count * 2 > self._best_cap:
            self._until_trial -= 1
            if self._until_trial == 0:
                self._until_trial = _TRIAL_EVERY
                self._trials_left = _RUNS
                self._trial_cap = min(2 * self._best_cap, MOST_ROWS)

    def _choose(self) -> None:
        profile = self.profile
        if not profile:
            return
        widest = max(profile)
        narrower = [rows for rows in profile if rows <= widest / 2]
        best = max((rows / profile[rows] for rows in narrower), default=0.0)
        still_gains = widest / profile[widest] >= _LEAST_GAIN * best
        self._best_cap = min(2 * widest, MOST_ROWS) if still_gains else choose_cap(profile)


def choose_cap(profile: BatchProfile) -> int:
    """Return the smallest number of rows that reaches ENOUGH of the best throughput."""
    best = max(rows / seconds for rows, seconds in profile.items())
    return min(rows for rows, seconds in profile.items() if rows / seconds >= ENOUGH * best)


class ProfileStore:
    """Profiles by model and area, in one JSON file; an unreadable file is replaced.

    Areas within about a fifth of each other share a profile, scaled by their pixels, so that not
    every size is learned anew. Safe to use from several threads.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._profiles: dict[str, dict[str, float]] = {}
        if path is not None and path.exists():
            try:
                self._profiles = dict(json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, TypeError):
                _log.warning("profiles_unreadable", path=str(path))

    def get(self, model: str, pixel_count: int) -> BatchProfile | None:
        """Return the profile of a model for images of this area, if there is one."""
        area, key = _bin_area(model, pixel_count)
        with self._lock:
            profile = self._profiles.get(key)
        if profile is None:
            return None
        return {int(rows): s * pixel_count / area for rows, s in profile.items()}

    def put(self, model: str, pixel_count: int, profile: BatchProfile) -> None:
        """Keep a profile, and write the file; log a warning if that fails."""
        area, key = _bin_area(model, pixel_count)
        with self._lock:
            self._profiles[key] = {str(rows): s * area / pixel_count for rows, s in profile.items()}
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside = self._path.with_suffix(".partial")
            aside.write_text(json.dumps(self._profiles, indent=1), "utf-8")
            aside.replace(self._path)
        except OSError as error:
            _log.warning("profiles_unwritable", path=str(self._path), error=error.strerror)


def _bin_area(model: str, pixel_count: int) -> tuple[int, str]:
    """Return the nearest half power of two of pixels, and the key of its profile."""
    area = round(2 ** (round(2 * math.log2(pixel_count)) / 2))
    return area, f"{model}, {area} pixels"
