"""Goals: targets for the service on one H100."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.gpu.reporting.figures import Figures

CARD = "H100"
"""Part of the name of the GPU that the goals were set for."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Target for a figure: a minimum or a maximum."""

    text: str
    wanted: float
    is_least: bool
    """Whether `wanted` is a minimum."""
    unit: str
    """Format string of a value."""
    find: Callable[[Figures], float | None]

    def describe(self) -> str:
        """Return the target as the text of a table cell."""
        return f"{'≥' if self.is_least else '≤'} {self.unit.format(self.wanted)}"

    def judge(self, figures: Figures) -> str:
        """Return the measured value and whether it meets the target, as the text of a cell."""
        value = self.find(figures)
        if value is None:
            return "not measured yet"
        if figures.is_rehearsal:
            return f"{self.unit.format(value)}, rehearsed"
        is_met = value >= self.wanted if self.is_least else value <= self.wanted
        return f"{self.unit.format(value)}, {'met' if is_met else 'not met'}"


def _overhead(stage: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.value(stage, "overhead", "overhead")


def _busy(stage: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.value(stage, "usage", "busy_share", callers=8)


def _rate(stage: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.value(stage, "served", "images_per_s", callers=8)


def _image(stage: str) -> Callable[[Figures], float | None]:
    return lambda figures: figures.value(stage, "image", "seconds", side_px=1024)


def _gain_of_four(figures: Figures) -> float | None:
    one, four = (
        figures.value("flux-served", "served", "images_per_s", side_px=512, callers=callers)
        for callers in (1, 4)
    )
    return four / one if one and four else None


_SHARE, _RATE, _SECONDS, _TIMES = "{:.1%}", "{:.2f}/s", "{:.2f} s", "{:.2f} x"

GOALS = (
    Goal("Overhead over the bare pipeline, SD1.5", 0.02, False, _SHARE, _overhead("sd15-served")),
    Goal("Overhead over the bare pipeline, SDXL", 0.02, False, _SHARE, _overhead("sdxl-served")),
    Goal(
        "Overhead over the bare pipeline, FLUX.1-dev", 0.02, False, _SHARE, _overhead("flux-served")
    ),
    Goal("GPU busy with 8 callers, SD1.5", 0.95, True, _SHARE, _busy("sd15")),
    Goal("GPU busy with 8 callers, SDXL", 0.95, True, _SHARE, _busy("sdxl")),
    Goal("GPU busy with 8 callers, FLUX.1-dev at 512²", 0.95, True, _SHARE, _busy("flux")),
    Goal("SD1.5 at 512², 30 steps, 8 callers, eager", 4.7, True, _RATE, _rate("sd15-served")),
    Goal(
        "SD1.5 at 512², 30 steps, 8 callers, CUDA graphs",
        8.0,
        True,
        _RATE,
        _rate("sd15-served-graphs"),
    ),
    Goal("FLUX.1-dev at 512², 4 callers against one", 3.2, True, _TIMES, _gain_of_four),
    Goal("SDXL at 1024², 20 steps, bfloat16, 8 callers", 1.5, True, _RATE, _rate("sdxl-served")),
    Goal("FLUX.1-dev at 1024², 28 steps, regional", 4.6, False, _SECONDS, _image("flux-regional")),
    Goal("FLUX.1-dev at 1024², 28 steps, fp8", 3.3, False, _SECONDS, _image("flux-fp8")),
)
