"""What benchmarks share: ways that take turns, their figures, and the machine they ran on."""

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
    """Median of what was measured in several rounds, and the quartiles: half lies between them."""

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
    """What was measured of one way, and its ratio to the first way in the same rounds."""

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
"""Torch's idle threads spin for a while; the next way must not have to share with them."""


def take_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each way once a round; return what each has measured, round by round.

    So a machine that is slower for a while is so for all ways. The order is another one in each
    round, since what one way leaves behind, a warm processor or a throttled one, is the next
    one's. One more round, the first, does not count.
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
    """Return what runs a way, and returns the seconds that it took."""

    def run() -> float:
        begun_at = time.perf_counter()
        way()
        return time.perf_counter() - begun_at

    return run


def compare(measured: Mapping[str, Sequence[float]]) -> dict[str, Comparison]:
    """Compare the measurements of all ways, round by round, with those of the first."""
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
    """Return what figures depend on: the processor, the GPU, and the versions of the libraries."""
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
