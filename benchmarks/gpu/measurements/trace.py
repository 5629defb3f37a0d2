"""Trace: a device's busy share and its gaps, from the profiler."""

import gzip
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.session import Session

_WORK = {"cuda": ("kernel", "gpu_memcpy", "gpu_memset"), "cpu": ("cpu_op",)}
"""Categories of device work in the profiler's traces."""

_NAME_LENGTH = 60
_MAX_FILE_BYTES = 15 << 20


@dataclass(frozen=True, slots=True)
class Interval:
    """Work of a device, from start to end in microseconds of the profiler's clock."""

    began_at: float
    ended_at: float
    name: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Idle time of a device, between two named pieces of work."""

    ms: float
    after: str
    before: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Busy share and gaps of a device, from the start of its first work to the end of its last."""

    wall_ms: float
    busy_share: float
    gaps: Sequence[Gap]
    """The longest first."""

    @classmethod
    def of(cls, intervals: Iterable[Interval]) -> "Usage":
        """Compute usage from intervals, which may overlap, as on several streams.

        Raises:
            ValueError: there are no intervals.
        """
        ordered = sorted(intervals, key=lambda interval: interval.began_at)
        if not ordered:
            raise ValueError("the profiler saw no work on the device")
        last, busy, gaps = ordered[0], 0.0, []
        reached = last.began_at
        for interval in ordered:
            idle = interval.began_at - reached
            if idle > 0:
                gaps.append(Gap(round(idle / 1e3, 3), last.name, interval.name))
            if interval.ended_at > reached:
                busy += interval.ended_at - max(interval.began_at, reached)
                reached, last = interval.ended_at, interval
        wall = reached - ordered[0].began_at
        gaps.sort(key=lambda gap: gap.ms, reverse=True)
        return cls(wall / 1e3, busy / wall, gaps)


def trace(session: Session, work: Callable[[], None], name: str) -> tuple[Usage, dict[str, float]]:
    """Run a function under the profiler; return the device's usage and the host's waits.

    Waits are milliseconds by name of the CUDA function. Keeps the trace in the session's folder
    unless it is large. The profiler slows the host, so the device is busier without it.
    """
    is_cuda = session.device == "cuda"
    activity = ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        work()
    file = session.folder / f"trace-{name}.json"
    profiler.export_chrome_trace(str(file))
    text = file.read_bytes()
    file.unlink()
    packed = gzip.compress(text, 6)
    if len(packed) < _MAX_FILE_BYTES:
        file.with_suffix(".json.gz").write_bytes(packed)
    events = json.loads(text)["traceEvents"]
    return Usage.of(_intervals(events, _WORK[session.device])), _waits(events)


def _intervals(events: Iterable[dict[str, Any]], categories: Sequence[str]) -> list[Interval]:
    return [
        Interval(event["ts"], event["ts"] + event["dur"], event["name"][:_NAME_LENGTH])
        for event in events
        if event.get("cat") in categories and "dur" in event
    ]


def _waits(events: Iterable[dict[str, Any]]) -> dict[str, float]:
    waits: dict[str, float] = {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "cuda_runtime" and (
            "Synchronize" in name or name.startswith("cudaMemcpy")
        ):
            waits[name] = round(waits.get(name, 0.0) + event["dur"] / 1e3, 2)
    return waits
