"""Report: measurements taken in turns, their statistics, and the files of results."""

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import torch


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and quartiles of the measurements of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, measured: Sequence[float]) -> Self:
        """Summarise measurements."""
        low, median, high = statistics.quantiles(measured, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} - {self.high:.3f})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Measurements of one way, and their ratios to the first way in the same rounds."""

    measured: Spread
    ratio: Spread


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Mean, median and 99th percentile."""

    mean: float
    p50: float
    p99: float

    @classmethod
    def of(cls, measured: Sequence[float]) -> Self:
        """Summarise measurements."""
        cuts = statistics.quantiles(measured, n=100, method="inclusive")
        return cls(statistics.fmean(measured), cuts[49], cuts[98])


SETTLE_S = 0.5
"""Seconds between two ways: torch's idle threads spin for a while and would slow the next."""


def take_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each way once a round; return the measurements of each, round by round.

    A machine that is slower for a while then slows all ways. Each round has a different order,
    because a way leaves the processor warm or throttled for the next. A first round warms up
    and does not count.
    """
    measured: dict[str, list[float]] = {name: [] for name in ways}
    shuffled = random.Random(0)
    for round_ in range(rounds + 1):
        for name in shuffled.sample(list(ways), len(ways)):
            time.sleep(SETTLE_S)
            value = ways[name]()
            if round_:
                measured[name].append(value)
    return measured


def timed(way: Callable[[], object]) -> Callable[[], float]:
    """Wrap a function into one that returns the seconds it took."""

    def run() -> float:
        begun_at = time.perf_counter()
        way()
        return time.perf_counter() - begun_at

    return run


def compare(measured: Mapping[str, Sequence[float]]) -> dict[str, Comparison]:
    """Compare all ways with the first, round by round."""
    base = next(iter(measured.values()))
    return {
        name: Comparison(
            Spread.of(values),
            Spread.of([value / other for value, other in zip(values, base, strict=True)]),
        )
        for name, values in measured.items()
    }


_FOLDER = Path(__file__).parents[1] / "results"


def write_report(name: str, figures: Mapping[str, object]) -> None:
    """Write benchmarks/results/NAME.json."""
    _FOLDER.mkdir(exist_ok=True)
    text = json.dumps({"machine": describe_machine(), "figures": figures}, indent=2)
    (_FOLDER / f"{name}.json").write_text(text + "\n")


def read_figures(name: str) -> dict[str, Any]:
    """Read the figures of benchmarks/results/NAME.json."""
    figures: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text())["figures"]
    return figures


def describe_machine() -> dict[str, Any]:
    """Return the processor, the GPU, and the versions of the libraries."""
    machine = {
        "processor": _find_processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in ("torch", "diffusers", "grpcio")},
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def _find_processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
