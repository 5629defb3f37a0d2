"""Telemetry: cost of traces and metrics while a collector listens.

Two services take turns on the same requests; one of them exports everything. Throughput varies
more than they differ, so this also compares processor time. Arithmetic takes nearly all of it and
is the same in both, so its threads count separately.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.report import Comparison, compare, take_turns, timed, write_report
from benchmarks.throughput import USUAL, call_service
from support.otlp_receiver import run_receiver
from support.running_service import RunningService, run_service

ROUNDS = 20
CONCURRENCY = 8
COMPUTING = os.cpu_count() or 1
"""Number of torch's arithmetic threads, the busiest of the process."""

ON = {"step_spans": "true", "prometheus_listen": '"127.0.0.1:0"'}


def main() -> None:
    """Measure, print and save."""
    settings = "{" + ", ".join(f'"{name}": {value}' for name, value in ON.items()) + "}"
    with (
        run_receiver() as receiver,
        run_service() as silent,
        run_service(
            otel={"exporter_otlp_endpoint": f"http://{receiver.endpoint}"}, telemetry=settings
        ) as exporting,
    ):
        services = {"off": silent, "on": exporting}
        computing_ms: dict[str, list[float]] = {name: [] for name in services}
        other_ms: dict[str, list[float]] = {name: [] for name in services}
        picture_count = len(USUAL.requests)

        async def call(service: RunningService) -> None:
            async for _ in call_service(service.target, CONCURRENCY, USUAL.requests):
                pass

        def way(name: str, service: RunningService) -> Callable[[], None]:
            def draw() -> None:
                begun_ms = read_processor_ms(service)
                asyncio.run(call(service))
                ended_ms = read_processor_ms(service)
                spent_ms = sorted(at - begun_ms.get(id_, 0.0) for id_, at in ended_ms.items())
                computing_ms[name].append(sum(spent_ms[-COMPUTING:]) / picture_count)
                other_ms[name].append(sum(spent_ms[:-COMPUTING]) / picture_count)

            return draw

        taken = take_turns(
            {name: timed(way(name, each)) for name, each in services.items()}, ROUNDS
        )
    for spent_ms in (*computing_ms.values(), *other_ms.values()):
        del spent_ms[0]  # the warm-up round
    rates = {name: [picture_count / each for each in seconds] for name, seconds in taken.items()}
    figures = {
        "pictures a second": compare(rates),
        "processor time of a picture, threads that compute, in ms": compare(computing_ms),
        "processor time of a picture, all other threads, in ms": compare(other_ms),
    }
    for title, figure in figures.items():
        report(title, figure)
    write_report(
        "telemetry",
        {
            title: {name: asdict(each) for name, each in figure.items()}
            for title, figure in figures.items()
        },
    )


def read_processor_ms(service: RunningService) -> dict[int, float]:
    """Return the processor time of a service's threads so far, in milliseconds by thread id."""
    spent_ms = {}
    for thread in Path(f"/proc/{service.process.pid}/task").iterdir():
        try:
            spent_ms[int(thread.name)] = int((thread / "schedstat").read_text().split()[0]) / 1e6
        except FileNotFoundError:
            continue  # the thread has just ended
    return spent_ms


def report(title: str, figures: dict[str, Comparison]) -> None:
    """Print a table."""
    print(title)
    for name, figure in figures.items():
        print(f"  {name:<6}{figure.measured.median:>8.2f}   {figure.ratio}")


if __name__ == "__main__":
    main()
