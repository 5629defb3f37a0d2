"""Overhead: what a call through the service costs beyond the bare pipeline."""

from collections.abc import Callable, Mapping
from dataclasses import asdict

from safelight import Client

from benchmarks.bare import PROMPT, Draw, Request, draw_one_after_another, run_bare_pipeline
from benchmarks.report import Comparison, compare, take_turns, timed, write_report
from tests.running_service import run_service

SIZES = (64, 128, 256)
ROUNDS = 40


def main() -> None:
    """Measure, print and write."""
    with (
        run_bare_pipeline() as bare,
        run_service() as service,
        Client(service.target) as client,
    ):
        draw = bare(draw_one_after_another)
        report({size: compare(take_turns(list_ways(draw, client, size), ROUNDS)) for size in SIZES})


def list_ways(draw: Draw, client: Client, size: int) -> dict[str, Callable[[], float]]:
    """Return the ways to make one picture, each of which returns the seconds that it took."""
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


def report(figures: Mapping[int, Mapping[str, Comparison]]) -> None:
    """Print the table and write the results."""
    print(f"{'one picture, 20 steps':<36}{'median':>9}   ratio")
    for size, ways in figures.items():
        for name, figure in ways.items():
            print(
                f"{size:>4} x {size:<4}{name:<25}{figure.measured.median:>7.3f} s   {figure.ratio}"
            )
    write_report(
        "overhead",
        {
            f"{size} x {size}": {name: asdict(figure) for name, figure in ways.items()}
            for size, ways in figures.items()
        },
    )


if __name__ == "__main__":
    main()
