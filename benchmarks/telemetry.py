"""Telemetry: what traces and metrics cost while a collector listens.

Two services take turns on the same requests, one of which exports all that there is, with a span
for each step. Beside the pictures a second, the processor time of each service tells the cost,
which the clock hides where a machine is shared.
"""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.report import Comparison, compare, take_turns, write_report
from benchmarks.throughput import draw_by_service, mix
from tests.otlp_receiver import run_receiver
from tests.running_service import RunningService, run_service

ROUNDS = 6
CONCURRENCY = 8
MIXES = 1
ON = {"step_spans": "true", "prometheus_listen": '"127.0.0.1:0"'}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, print and write."""
    settings = "{" + ", ".join(f'"{name}": {value}' for name, value in ON.items()) + "}"
    with (
        run_receiver() as receiver,
        run_service() as silent,
        run_service(
            otel={"exporter_otlp_endpoint": f"http://{receiver.endpoint}"}, telemetry=settings
        ) as telling,
    ):
        services = {"off": silent, "on": telling}
        processor_s: dict[str, list[float]] = {name: [] for name in services}

        def way(name: str, service: RunningService) -> Callable[[], None]:
            def draw() -> None:
                begun_s = read_processor_s(service)
                draw_by_service(service.target, CONCURRENCY, mix(MIXES))
                processor_s[name].append(read_processor_s(service) - begun_s)

            return draw

        taken = take_turns({name: way(name, each) for name, each in services.items()}, ROUNDS)
    picture_count = len(mix(MIXES))
    rates = {name: [picture_count / each for each in seconds] for name, seconds in taken.items()}
    processor_s = {name: seconds[1:] for name, seconds in processor_s.items()}  # no first round
    report("pictures a second", compare(rates))
    report("processor seconds", compare(processor_s))
    write_report(
        "telemetry",
        {
            "pictures a second": {name: asdict(each) for name, each in compare(rates).items()},
            "processor seconds": {
                name: asdict(each) for name, each in compare(processor_s).items()
            },
            "spans": len(receiver.spans),
        },
    )


def read_processor_s(service: RunningService) -> float:
    """Return the processor time that a service has used so far, in seconds."""
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def report(title: str, figures: dict[str, Comparison]) -> None:
    """Print a table."""
    print(title)
    for name, figure in figures.items():
        print(f"  {name:<6}{figure.measured.median:>8.2f}   {figure.ratio}")


if __name__ == "__main__":
    main()
