"""Timing: seconds of the device, and of the host to launch its work."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.gpu.session import Session

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Timed:
    """Timings of a function that runs several times."""

    first_s: float
    """Seconds of the first run, which compiles, captures or chooses kernels."""
    median_s: float
    launch_s: float
    """Median seconds until the host can go on, though the device may still be busy."""
    peak_gib: float | None
    """Peak of allocated memory; None on a CPU."""


def measure(session: Session, run: Callable[[], object], runs: int = 5) -> Timed:
    """Run a function once to warm up, then time `runs` more."""
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
    """Return the seconds until the device has finished, and until the host can go on."""
    synchronize(session)
    began_at = time.perf_counter()
    run()
    launched_at = time.perf_counter()
    synchronize(session)
    return time.perf_counter() - began_at, launched_at - began_at


def synchronize(session: Session) -> None:
    """Wait until the device has finished all its work."""
    if session.device == "cuda":
        torch.cuda.synchronize()


def ms(seconds: float) -> float:
    """Convert seconds to milliseconds, rounded for a table."""
    return round(1e3 * seconds, 2)
