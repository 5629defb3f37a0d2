"""Overhead: cost of a call through the service, compared with the bare pipeline.

Measures twice: with arithmetic on all cores, where it competes with the service's events and the
client, and on one core.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safelight import Client

from benchmarks.harness.bare import PROMPT, Draw, Request, draw_one_after_another, run_bare_pipeline
from benchmarks.harness.report import Comparison, Spread, compare, take_turns, timed, write_report
from support.running_service import run_service

SIZES = (64, 128, 256)
SIZES_ON_ONE_CORE = (64, 128)
ROUNDS = 24


@dataclass(frozen=True, slots=True)
class Overhead:
    """Time of a way, and its difference from the first way in the same rounds."""

    comparison: Comparison
    more_ms: Spread


def main() -> None:
    """Measure, print and save."""
    on_all = {f"{size} x {size}": figure for size, figure in measure(SIZES, None).items()}
    on_one = {
        f"{size} x {size}, one core": figure
        for size, figure in measure(SIZES_ON_ONE_CORE, 1).items()
    }
    report(on_all | on_one)


def measure(sizes: Sequence[int], torch_threads: int | None) -> dict[int, dict[str, Overhead]]:
    """Compare the ways to make an image of each size, in pixels."""
    settings: dict[str, Any] = (
        {} if torch_threads is None else {"torch_threads": str(torch_threads)}
    )
    with (
        run_bare_pipeline(torch_threads) as bare,
        run_service(**settings) as service,
        Client(service.target) as client,
    ):
        draw = bare(draw_one_after_another)
        return {
            size: summarise(take_turns(list_ways(draw, client, size), ROUNDS)) for size in sizes
        }


def summarise(measured: Mapping[str, Sequence[float]]) -> dict[str, Overhead]:
    """Compare the seconds of all ways with those of the first, round by round."""
    base = next(iter(measured.values()))
    return {
        name: Overhead(
            comparison,
            Spread.of([1e3 * (value - other) for value, other in zip(values, base, strict=True)]),
        )
        for (name, values), comparison in zip(
            measured.items(), compare(measured).values(), strict=True
        )
    }


def list_ways(draw: Draw, client: Client, size: int) -> dict[str, Callable[[], float]]:
    """Return the ways to make one image; each returns the seconds taken."""
    request = Request(size=size)

    def watch(preview_every: int) -> None:
        with client.generate(
            PROMPT,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            width=size,
            height=size,
            seed=request.seed,
            preview_every=preview_every,
        ) as events:
            for _ in events:
                pass

    return {
        "bare pipeline": timed(lambda: draw([request])),
        "through the service": timed(lambda: watch(preview_every=0)),
        "with a preview each step": timed(lambda: watch(preview_every=1)),
    }


def report(figures: Mapping[str, Mapping[str, Overhead]]) -> None:
    """Print the table and save the results."""
    print(f"{'one image, 20 steps':<46}{'median':>9}   ratio                   ms more")
    for case, ways in figures.items():
        for name, figure in ways.items():
            measured, ratio = figure.comparison.measured, figure.comparison.ratio
            print(f"{case:<21}{name:<25}{measured.median:>7.3f} s   {ratio}   {figure.more_ms}")
    write_report(
        "overhead",
        {
            case: {
                name: {**asdict(figure.comparison), "more_ms": asdict(figure.more_ms)}
                for name, figure in ways.items()
            }
            for case, ways in figures.items()
        },
    )


if __name__ == "__main__":
    main()
