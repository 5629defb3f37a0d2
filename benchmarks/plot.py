"""Plot: the pictures of docs/performance.md in docs/images, from the results."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "safelight"  # equal figures give an equal file

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from benchmarks import fairness, goodput, reuse  # noqa: E402
from benchmarks.harness.report import read_figures  # noqa: E402
from benchmarks.throughput import USUAL  # noqa: E402

FOLDER = Path("docs/images")
SERVICE = "the service, "

Draw = Callable[[Axes], None]
"""Draws one half of a picture."""


def main() -> None:
    """Draw and save all pictures."""
    draw_both(
        "performance",
        lambda axes: draw_throughput(axes, read_figures("throughput")[str(USUAL)]),
        lambda axes: draw_latency(axes, read_figures("latency")),
    )
    draw_both(
        "goodput",
        lambda axes: draw_goodput(axes, read_figures("goodput"), ""),
        lambda axes: draw_goodput(axes, read_figures("goodput"), goodput.DEADLINES),
    )
    draw_both(
        "fairness",
        lambda axes: draw_flood(axes, read_figures("fairness")),
        lambda axes: draw_shares(axes, read_figures("fairness")),
    )
    draw_both(
        "fleet",
        lambda axes: draw_delays(axes, read_figures("fleet")["delays_ms"]),
        lambda axes: draw_routers(axes, read_figures("fleet")["routers"]),
    )
    draw_both(
        "reuse",
        lambda axes: draw_exactness(axes, read_figures("reuse")["exactness"]),
        lambda axes: draw_verdicts(axes, read_figures("reuse")),
    )


def draw_both(name: str, left: Draw, right: Draw) -> None:
    """Draw two halves and save the picture."""
    figure, halves = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for draw, axes in zip((left, right), halves, strict=True):
        draw(axes)
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})


def draw_goodput(axes: Axes, figures: dict[str, Any], suffix: str) -> None:
    """Draw the share of calls in time by load and order, with the goals."""
    orders = list(figures[goodput.name_run(min(goodput.GOALS), suffix)])
    for number, order in enumerate(orders):
        places = [place + 0.8 * number / len(orders) for place in range(len(goodput.GOALS))]
        runs = [figures[goodput.name_run(load, suffix)][order] for load in goodput.GOALS]
        bars = axes.bar(
            places, [run["in_time"] for run in runs], 0.75 / len(orders), align="edge", label=order
        )
        axes.bar_label(bars, [f"{run['in_time']:.0%}" for run in runs], fontsize="small")
    for place, goal in enumerate(goodput.GOALS.values()):
        axes.hlines(goal, place, place + 0.78, color="grey", linestyle="--")
    axes.set_xticks(
        [place + 0.39 for place in range(len(goodput.GOALS))],
        [f"load {load}" for load in goodput.GOALS],
    )
    axes.set_ylim(0, 1.1)
    axes.set_ylabel("calls in time")
    axes.set_title(f"callers {'with' if suffix else 'without'} deadlines", fontsize="medium")
    axes.legend(fontsize="small")


def draw_exactness(axes: Axes, exactness: dict[str, dict[str, Any]]) -> None:
    """Draw the difference from the images of all steps by the forwards that are left out."""
    for scheduler, shares in exactness.items():
        drawn = {share: seen for share, seen in shares.items() if float(share)}
        speeds = [1 / (1 - float(share)) for share in drawn]
        (line,) = axes.plot(
            speeds, [seen["difference"] for seen in drawn.values()], marker="o", label=scheduler
        )
        axes.plot(
            speeds,
            [seen["fewer_steps"] for seen in drawn.values()],
            color=line.get_color(),
            linestyle="--",
        )
    axes.plot([], [], color="grey", linestyle="--", label="fewer steps")
    axes.set_yscale("log")
    axes.set_xlabel("steps by forwards")
    axes.set_ylabel("levels of 255")
    axes.set_title(f"difference from the images of {reuse.STEPS} steps", fontsize="medium")
    axes.legend(fontsize="small")


def draw_verdicts(axes: Axes, figures: dict[str, Any]) -> None:
    """Draw the share of prompts that are drawn right, by the share of reused steps."""
    shares = next(iter(figures["exactness"].values()))
    for trait in ("colour", "background", "shape"):
        axes.plot(
            [float(share) for share in shares],
            [seen[trait] / figures["prompts"] for seen in shares.values()],
            marker="o",
            label=trait,
        )
    axes.set_ylim(0, 1.1)
    axes.set_xlabel("share of steps reused")
    axes.set_ylabel("prompts drawn right")
    axes.set_title(f"{figures['prompts']} prompts, {reuse.SCHEDULERS[0]}", fontsize="medium")
    axes.legend(fontsize="small", loc="lower left")


def draw_delays(axes: Axes, delays: dict[str, Any]) -> None:
    """Draw the 95th percentiles of first events and of each event."""
    kinds = {"first": "first event", "events": "each event", "crowded": "64 streams"}
    for number, (name, by_kind) in enumerate(delays.items()):
        places = [place + 0.4 * number for place in range(len(kinds))]
        bars = axes.bar(
            places, [by_kind[kind]["p95"] for kind in kinds], 0.38, align="edge", label=name
        )
        axes.bar_label(bars, fmt="%.1f", fontsize="small")
    axes.set_xticks([place + 0.4 for place in range(len(kinds))], list(kinds.values()))
    axes.set_ylabel("ms, 95th percentile")
    axes.set_title("delay of events", fontsize="medium")
    axes.legend(fontsize="small")


def draw_routers(axes: Axes, routers: dict[str, Any]) -> None:
    """Draw the median and the 99th percentile of seconds by router."""
    for number, share in enumerate(("p50", "p99")):
        places = [place + 0.4 * number for place in range(len(routers))]
        bars = axes.bar(
            places,
            [each[f"{share}_s"] for each in routers.values()],
            0.38,
            align="edge",
            label=share,
        )
        axes.bar_label(bars, fmt="%.1f", fontsize="small")
    axes.set_xticks([place + 0.4 for place in range(len(routers))], list(routers))
    axes.set_ylabel("seconds")
    axes.set_title("3 engines, mixed sizes, load 0.7", fontsize="medium")
    axes.legend(fontsize="small")


def draw_flood(axes: Axes, figures: dict[str, Any]) -> None:
    """Draw the seconds of the callers beside a greedy one."""
    names = (fairness.OWN, fairness.TOGETHER, fairness.EACH)
    for number, percentile in enumerate(("p50", "p99")):
        places = [place + 0.4 * number for place in range(len(names))]
        axes.bar(
            places,
            [figures[name]["seconds"][percentile] for name in names],
            0.36,
            align="edge",
            label=percentile,
        )
    goal = fairness.MOST_P99 * figures[fairness.OWN]["seconds"]["p99"]
    axes.axhline(goal, color="grey", linestyle="--", label="goal of p99")
    axes.set_xticks(
        [place + 0.38 for place in range(len(names))],
        ["a device each\n(computed)", "one token\nfor all", "a token\neach"],
    )
    axes.set_ylabel("seconds of a call beside a greedy caller")
    axes.legend(fontsize="small")


def draw_shares(axes: Axes, figures: dict[str, Any]) -> None:
    """Draw the device seconds of backlogged callers, and those that their weights give."""
    place = 0
    for name, weights in (
        (fairness.EQUAL, [1.0] * len(fairness.LOOPS)),
        (fairness.WEIGHTED, fairness.WEIGHTS),
    ):
        seconds = figures[name]["seconds"]
        unit = sum(seconds) / sum(weights)
        places = range(place, place + len(weights))
        axes.bar(places, seconds, 0.8, label=name)
        for at, weight in zip(places, weights, strict=True):
            axes.hlines(unit * weight, at - 0.45, at + 0.45, color="grey", linestyle="--")
        place += len(weights) + 1
    axes.set_xticks([])
    axes.set_xlabel("callers that never pause; dashed: by weight")
    axes.set_ylabel("device seconds")
    axes.legend(fontsize="small")


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
