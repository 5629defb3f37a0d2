"""The report of a benchmark: its figures, with the machine that they were measured on."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and extremes of what was measured in several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, measured: Sequence[float]) -> Self:
        """Summarise measurements."""
        return cls(statistics.median(measured), min(measured), max(measured))

    @classmethod
    def of_ratios(cls, measured: Sequence[float], base: Sequence[float]) -> Self:
        """Summarise the ratios of measurements to others of the same rounds."""
        return cls.of([value / other for value, other in zip(measured, base, strict=True)])

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} - {self.high:.3f})"


_FOLDER = Path(__file__).parent / "results"


def write_report(name: str, figures: Mapping[str, object]) -> None:
    """Write benchmarks/results/NAME.json."""
    machine = {
        "processor": _find_processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in ("torch", "diffusers", "grpcio")},
    }
    _FOLDER.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine, "figures": figures}, indent=2)
    (_FOLDER / f"{name}.json").write_text(text + "\n")


def _find_processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
