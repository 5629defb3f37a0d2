"""Widths: how many rows a forward should have, learned from the forwards that are made.

Merging pays only while the device is not saturated; beyond, it makes every image finish late. So
forwards may be at most twice as wide as the widest that was measured, as long as that one gained
throughput over half as wide ones; after that, the cap is the smallest width that reaches most of
the best throughput. No forward is made only to be measured. What was learned is kept on disk.
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
"""Of the best throughput; wider forwards gain less than they cost in latency."""

MOST_ROWS = 32
_RUNS = 3
"""Forwards of a width, beside the first one, after which it counts as measured."""

_TRIAL_EVERY = 200
"""Forwards at the cap after which wider ones are tried again."""

_LEAST_GAIN = 1.02
"""Of throughput over half the width, below which no wider forwards are tried."""

BatchProfile = Mapping[int, float]
"""Seconds of a forward by its rows."""


class WidthSearch:
    """Learns the rows at which forwards of one model and size are fast enough."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._profile: dict[int, float] = {}
        self._best_cap = 0
        self._trial_cap = 0
        self._until_trial = _TRIAL_EVERY
        self._trials_left = 0

    @property
    def cap(self) -> int:
        """Most rows of a merged forward."""
        return max(self._best_cap, self._trial_cap)

    @property
    def profile(self) -> BatchProfile:
        """Seconds of the fastest forward by rows, of widths that were measured often enough."""
        return {rows: s for rows, s in self._profile.items() if self._counts[rows] > _RUNS}

    def recall(self, profile: BatchProfile) -> None:
        """Take over what was measured before."""
        self._profile |= profile
        self._counts.update(dict.fromkeys(profile, _RUNS + 1))
        self._choose()

    def note(self, row_count: int, seconds: float) -> bool:
        """Learn from a forward; return whether that changed what is known of widths.

        The first forward of a width may compile or tune for a minute, so it says nothing.
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
        """Have a wider forward tried now and then: one that was disturbed seems too slow."""
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
    """Profiles by model and area, in one JSON file; one that cannot be used is measured over.

    Areas that differ by less than a fifth or so share a profile, by the pixel: there are a great
    many sizes, and each would be learned anew. Several device threads may use it.
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
        """Return what was measured of that model, for images of so many pixels."""
        area, key = _find_place(model, pixel_count)
        with self._lock:
            profile = self._profiles.get(key)
        if profile is None:
            return None
        return {int(rows): s * pixel_count / area for rows, s in profile.items()}

    def put(self, model: str, pixel_count: int, profile: BatchProfile) -> None:
        """Keep a profile, on disk too if that can be written."""
        area, key = _find_place(model, pixel_count)
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


def _find_place(model: str, pixel_count: int) -> tuple[int, str]:
    """Return the nearest half octave of pixels, and the key of what is measured near it."""
    area = round(2 ** (round(2 * math.log2(pixel_count)) / 2))
    return area, f"{model}, {area} pixels"
