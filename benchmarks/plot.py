"""Plot: docs/images/performance.svg, from the results of throughput and latency."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "safelight"  # equal figures give an equal file

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from benchmarks.harness.report import read_figures  # noqa: E402
from benchmarks.throughput import USUAL  # noqa: E402

PICTURE = Path("docs/images/performance.svg")
SERVICE = "the service, "


def main() -> None:
    """Draw both halves and save the picture."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    draw_throughput(left, read_figures("throughput")[str(USUAL)])
    draw_latency(right, read_figures("latency"))
    figure.savefig(PICTURE, metadata={"Date": None})


def draw_throughput(axes: Axes, figures: dict[str, Any]) -> None:
    """Draw images per second by concurrency, as multiples of plain calls."""
    served = {
        int(name.removeprefix(SERVICE).split()[0]): figure["ratio"]
        for name, figure in figures.items()
        if name.startswith(SERVICE)
    }
    draw_ratios(axes, served, "the service")
    others = [name for name in figures if not name.startswith(SERVICE)]
    for name, style in zip(others, ("-", "--", ":"), strict=True):
        axes.axhline(figures[name]["ratio"]["median"], color="grey", linestyle=style, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(served), [str(width) for width in served])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("calls at once")
    axes.set_ylabel("pictures per second, plain calls = 1")
    axes.legend(fontsize="small")


def draw_latency(axes: Axes, figures: dict[str, Any]) -> None:
    """Draw mean seconds from call to image by load, as multiples of those not merged."""
    for way in next(iter(figures.values())):
        ratios = {
            float(load.removeprefix("load ")): ways[way]["ratio"] for load, ways in figures.items()
        }
        draw_ratios(axes, ratios, way)
    axes.set_xlabel("calls, as a share of what one at a time can do")
    axes.set_ylabel("mean latency, not merged = 1")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="small", loc="lower left")


def draw_ratios(axes: Axes, ratios: Mapping[int, Any] | Mapping[float, Any], label: str) -> None:
    """Draw medians with bars from quartile to quartile."""
    medians = [ratio["median"] for ratio in ratios.values()]
    spread = [
        [ratio["median"] - ratio["low"] for ratio in ratios.values()],
        [ratio["high"] - ratio["median"] for ratio in ratios.values()],
    ]
    axes.errorbar(list(ratios), medians, spread, marker="o", capsize=3, label=label)


if __name__ == "__main__":
    main()
