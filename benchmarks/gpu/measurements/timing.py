"""Timing: how long the device takes, and how long the host takes to launch it."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.gpu.session import Session

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of something that is run again and again."""

    first_s: float
    """Of the first run, which compiles, captures or chooses kernels."""
    median_s: float
    launch_s: float
    """Median until the host could go on, whether or not the device had finished."""
    peak_gib: float | None
    """The most memory that was allocated; None on a CPU."""


def measure(session: Session, run: Callable[[], object], runs: int = 5) -> Timed:
    """Run something once to warm up, then `runs` times."""
    if session.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    first_s, _ = time_once(session, run)
    timed = [time_once(session, run) for _ in range(session.few(runs))]
    return Timed(
        first_s,
        statistics.median(total for total, _ in timed),
        statistics.median(launch for _, launch in timed),
        torch.cuda.max_memory_allocated() / _GIB if session.device == "cuda" else None,
    )


def time_once(session: Session, run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds until the device has finished, and until the host could go on."""
    synchronize(session)
    began_at = time.perf_counter()
    run()
    launched_at = time.perf_counter()
    synchronize(session)
    return time.perf_counter() - began_at, launched_at - began_at


def synchronize(session: Session) -> None:
    """Return when the device has done all that it was given."""
    if session.device == "cuda":
        torch.cuda.synchronize()


def ms(seconds: float) -> float:
    """Return milliseconds, rounded for a table."""
    return round(1e3 * seconds, 2)
