"""Widths: how many rows a forward should have, found by measuring.

Merging pays only while the device is not saturated; beyond, it makes everybody finish late.
So forwards are timed at doubling widths, once for each model, area and device, and the cap is the
smallest width that reaches most of the best throughput. What was measured is kept on disk.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

_log = structlog.get_logger()

ENOUGH = 0.95
"""Of the best throughput; wider forwards gain less than they cost in latency."""

MOST_ROWS = 32
_RUNS = 3
_LEAST_GAIN = 1.02
"""Of throughput from one width to the next, below which wider ones are not tried."""

_BUDGET_S = 8.0
"""Seconds of forwards after which nothing more is tried: a device that slow is saturated."""

Profile = Mapping[int, float]
"""Seconds of a forward by its rows."""


def measure(run: Callable[[int], None], rows_per_call: int) -> Profile:
    """Time `run(calls)` for 1, 2, 4... calls merged, until that gains nothing more.

    `run` returns when the device has finished. A failure ends it too, and is nobody's yet: who
    makes a forward that fails is told. Empty where that of one call fails.
    """
    profile: dict[int, float] = {}
    best = 0.0
    calls = 1
    spent_s = 0.0
    while calls == 1 or calls * rows_per_call <= MOST_ROWS:
        runs: list[float] = []
        try:
            run(calls)  # Warms up; that may compile for a minute, so it says nothing.
            while len(runs) < _RUNS and spent_s < _BUDGET_S:
                runs.append(_time(run, calls))
                spent_s += runs[-1]
        except Exception as error:
            _log.info("width_not_measured", calls=calls, error_type=type(error).__name__)
            break
        profile[calls * rows_per_call] = min(runs)
        throughput = calls / min(runs)
        if throughput < best * _LEAST_GAIN or spent_s >= _BUDGET_S:
            break
        best = max(best, throughput)
        calls *= 2
    return profile


def choose_cap(profile: Profile) -> int:
    """Return the smallest number of rows that reaches ENOUGH of the best throughput."""
    best = max(rows / seconds for rows, seconds in profile.items())
    return min(rows for rows, seconds in profile.items() if rows / seconds >= ENOUGH * best)


class ProfileStore:
    """Profiles by model and area, in one JSON file; one that cannot be used is measured over.

    Areas that differ by less than a fifth or so share a profile, by the pixel: there are a great
    many sizes, and to measure takes seconds in which nothing else is done.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._profiles: dict[str, dict[str, float]] = {}
        if path is not None and path.exists():
            try:
                self._profiles = dict(json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, TypeError):
                _log.warning("profiles_unreadable", path=str(path))

    def get(self, model: str, pixel_count: int) -> Profile | None:
        """Return what was measured of that model, for images of so many pixels."""
        area, key = _find_place(model, pixel_count)
        profile = self._profiles.get(key)
        if profile is None:
            return None
        return {int(rows): s * pixel_count / area for rows, s in profile.items()}

    def put(self, model: str, pixel_count: int, profile: Profile) -> None:
        """Keep a profile, on disk too if that can be written."""
        area, key = _find_place(model, pixel_count)
        self._profiles[key] = {str(rows): s * area / pixel_count for rows, s in profile.items()}
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside = self._path.with_suffix(".partial")
            aside.write_text(json.dumps(self._profiles, indent=1), "utf-8")
            aside.replace(self._path)
        except OSError as error:
            _log.warning("profiles_unwritable", path=str(self._path), error=error.strerror)


def _time(run: Callable[[int], None], calls: int) -> float:
    begun_at = time.perf_counter()
    run(calls)
    return time.perf_counter() - begun_at


def _find_place(model: str, pixel_count: int) -> tuple[int, str]:
    """Return the nearest half octave of pixels, and the key of what is measured near it."""
    area = round(2 ** (round(2 * math.log2(pixel_count)) / 2))
    return area, f"{model}, {area} pixels"
