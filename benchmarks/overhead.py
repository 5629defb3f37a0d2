"""Overhead: what a call through the service costs beyond the bare pipeline."""

from collections.abc import Mapping
from dataclasses import asdict

from safelight import Client

from benchmarks.bare import PROMPT, Request, draw_one_after_another, run_bare_pipeline
from benchmarks.report import Comparison, compare, take_turns, timed, write_report
from tests.running_service import run_service

ROUNDS = 15


def main() -> None:
    """Measure, print and write."""
    with (
        run_bare_pipeline() as bare,
        run_service() as service,
        Client(service.target) as client,
    ):
        draw = bare(draw_one_after_another)
        request = Request()

        def watch(preview_every: int) -> None:
            with client.generate(
                PROMPT,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                seed=request.seed,
                preview_every=preview_every,
            ) as events:
                for _ in events:
                    pass

        ways = {
            "bare pipeline": lambda: draw([request]),
            "through the service": lambda: watch(preview_every=0),
            "with a preview each step": lambda: watch(preview_every=1),
        }
        report(compare(take_turns({name: timed(way) for name, way in ways.items()}, ROUNDS)))


def report(figures: Mapping[str, Comparison]) -> None:
    """Print the table and write the results."""
    print(f"{'one picture, 128 x 128, 20 steps':<34}{'median':>9}   ratio")
    for name, figure in figures.items():
        print(f"{name:<34}{figure.measured.median:>7.3f} s   {figure.ratio}")
    write_report("overhead", {name: asdict(figure) for name, figure in figures.items()})


if __name__ == "__main__":
    main()
