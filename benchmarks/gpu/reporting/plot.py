"""Plot: the gain of shared forwards, by width and by number of callers."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "safelight"  # equal figures give an equal file

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from benchmarks.gpu.reporting.figures import Figures  # noqa: E402
from benchmarks.gpu.reporting.tables import model_of  # noqa: E402

Curves = Mapping[str, Mapping[int, float]]
"""Values by width or number of callers, for each name of a curve."""


def draw(figures: Figures, file: Path) -> None:
    """Draw images per second as multiples of one at a time, for forwards and for the service."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.2), layout="constrained")
    _draw(left, _forwards(figures), "images that share a forward")
    _draw(right, _served(figures), "callers of the service")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _forwards(figures: Figures) -> Curves:
    curves: dict[str, dict[int, float]] = {}
    for figure in figures.all("forward"):
        values = figure.values
        curve = curves.setdefault(f"{model_of(figure)} {values['variant']}", {})
        curve[values["width"]] = values["width"] / values["forward_ms"]
    return curves


def _served(figures: Figures) -> Curves:
    curves: dict[str, dict[int, float]] = {}
    for figure in figures.all("served"):
        curve = curves.setdefault(f"{model_of(figure)} {figure.values['variant']}", {})
        curve[figure.values["callers"]] = figure.values["images_per_s"]
    return curves


def _draw(axes: Axes, curves: Curves, label: str) -> None:
    """Draw the curves that have a value at 1, as multiples of it."""
    known = {name: curve for name, curve in curves.items() if 1 in curve and len(curve) > 1}
    axes.set_prop_cycle(color=[plt.colormaps["tab20"](number) for number in range(20)])
    for name, curve in known.items():
        axes.plot(list(curve), [value / curve[1] for value in curve.values()], "o-", label=name)
    axes.set_xscale("log", base=2)
    ticks = sorted({place for curve in known.values() for place in curve})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(label)
    axes.set_ylabel("images a second, one alone = 1")
    if known:
        axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
