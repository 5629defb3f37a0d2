"""Widths: how many rows a forward should have, found by measuring.

Merging pays only while the device is not saturated; beyond, it makes everybody finish late.
So forwards are timed at doubling widths, once for each model, size, precision and device, and
the cap is the smallest width that reaches most of the best throughput. What was measured is
kept on disk.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
import torch

_log = structlog.get_logger()

ENOUGH = 0.95
"""Of the best throughput; wider forwards gain less than they cost in latency."""

MOST_ROWS = 32
_RUNS = 3
_LEAST_GAIN = 1.02
"""Of throughput from one width to the next, below which wider ones are not tried."""

_BUDGET_S = 8.0
"""Seconds after which no wider forward is tried: a device that slow is saturated already."""

Profile = Mapping[int, float]
"""Seconds of a forward by its rows."""


def measure(run: Callable[[int], None], rows_per_call: int) -> Profile:
    """Time `run(calls)` for 1, 2, 4... calls merged, until that gains nothing more.

    `run` returns when the device has finished. Out of memory ends it too.
    """
    profile: dict[int, float] = {}
    best = 0.0
    calls = 1
    begun_at = time.perf_counter()
    while calls == 1 or calls * rows_per_call <= MOST_ROWS:
        try:
            run(calls)
            seconds = min(_time(run, calls) for _ in range(_RUNS))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        profile[calls * rows_per_call] = seconds
        throughput = calls / seconds
        if throughput < best * _LEAST_GAIN or time.perf_counter() - begun_at > _BUDGET_S:
            break
        best = max(best, throughput)
        calls *= 2
    return profile


def choose_cap(profile: Profile) -> int:
    """Return the smallest number of rows that reaches ENOUGH of the best throughput."""
    best = max(rows / seconds for rows, seconds in profile.items())
    return min(rows for rows, seconds in profile.items() if rows / seconds >= ENOUGH * best)


class ProfileStore:
    """Profiles by key, in one JSON file; a file that cannot be used costs a new measurement."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._profiles: dict[str, dict[str, float]] = {}
        if path is not None and path.exists():
            try:
                self._profiles = dict(json.loads(path.read_text("utf-8")))
            except (OSError, ValueError, TypeError):
                _log.warning("profiles_unreadable", path=str(path))

    def get(self, key: str) -> Profile | None:
        """Return what was measured under that key."""
        profile = self._profiles.get(key)
        return None if profile is None else {int(rows): s for rows, s in profile.items()}

    def put(self, key: str, profile: Profile) -> None:
        """Keep a profile, on disk too if that can be written."""
        self._profiles[key] = {str(rows): seconds for rows, seconds in profile.items()}
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
