"""`python -m benchmarks.floods.report`: puts the floods' figures into docs/reliability.md."""

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "safelight"  # equal figures give an equal file

import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.harness.report import read_figures  # noqa: E402

PAGE = Path("docs/reliability.md")
PICTURE = Path("docs/images/floods.svg")
GOAL = 5.0
"""Health checks may take this many times as long as without a flood."""

_TABLE = re.compile(r"(?<=<!-- floods -->\n).*?(?=<!-- end of floods -->)", re.DOTALL)
_HEAD = """\
![Health checks during floods, directly and behind Envoy](images/floods.svg)

| flood | directly: p99 | failed | MiB | behind the front: p99 | failed | MiB |
| --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> None:
    """Write the table and draw the picture."""
    direct, fronted = read_figures("floods"), read_figures("floods_front")
    names = [name for name in direct if name in fronted]
    rows = [
        f"| {name} | {describe(direct[name])} | {describe(fronted[name])} |\n" for name in names
    ]
    text, count = _TABLE.subn(lambda _: _HEAD + "".join(rows), PAGE.read_text())
    assert count == 1
    PAGE.write_text(text)
    draw(names[1:], direct, fronted)


def describe(figures: dict[str, Any]) -> str:
    """Return the cells of a flood: p99 of health checks, failures of all calls, growth."""
    others = figures["others"]
    failed = sum(sum(kind["failed"].values()) for kind in others.values())
    made = failed + sum(kind["count"] for kind in others.values())
    p99 = others["check"]["p99_ms"]
    growth = f"{max(0, figures['service_growth_mib']):.0f}"
    if figures["front_growth_mib"] is not None:
        growth += f" + {max(0, figures['front_growth_mib']):.0f}"
    return f"{'none' if p99 is None else f'{p99:.0f} ms'} | {failed} of {made} | {growth}"


def draw(names: list[str], direct: dict[str, Any], fronted: dict[str, Any]) -> None:
    """Draw the health checks' p99 of both ways as multiples of those without a flood."""
    figure, axes = plt.subplots(figsize=(9, 0.26 * len(names) + 1), layout="constrained")
    for offset, label, figures in ((-0.2, "directly", direct), (0.2, "behind Envoy", fronted)):
        quiet = figures["quiet"]["others"]["check"]["p99_ms"]
        ratios = [(figures[name]["others"]["check"]["p99_ms"] or 0) / quiet for name in names]
        rows = [row + offset for row in range(len(names))]
        axes.barh(rows, ratios, height=0.4, label=label)
    axes.axvline(GOAL, color="grey", linestyle="--", label=f"{GOAL:g} times")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("p99 of health checks during a flood, without one = 1")
    axes.legend(fontsize="small")
    figure.savefig(PICTURE, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
