"""Telemetry: what traces and metrics cost while a collector listens.

First the processor time of all that telemetry does for one generation, its export included, and
some of the collector's. Then two services take turns on the same requests, one of which exports
all that there is.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.report import Comparison, compare, take_turns, write_report
from benchmarks.throughput import draw_by_service, mix
from safelight_service.engine import Load
from safelight_service.generation import GenerationRequest
from safelight_service.telemetry.metrics import Metrics
from safelight_service.telemetry.providers import Providers
from safelight_service.telemetry.signals import Signals
from safelight_service.telemetry.traces import Traces
from safelight_service.trail import SharedForward, Trail
from tests.otlp_receiver import run_receiver
from tests.running_service import RunningService, run_service

ROUNDS = 6
CONCURRENCY = 8
MIXES = 1
GENERATIONS = 200
STEPS = 20
ON = {"step_spans": "true", "prometheus_listen": '"127.0.0.1:0"'}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, print and write."""
    settings = "{" + ", ".join(f'"{name}": {value}' for name, value in ON.items()) + "}"
    with run_receiver() as receiver:
        cost_s = measure_one_generation(receiver.endpoint)
    print(f"processor time for a generation of {STEPS} steps: {cost_s * 1e3:.1f} ms")
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
            "processor seconds a generation, telemetry alone": cost_s,
        },
    )


def measure_one_generation(endpoint: str) -> float:
    """Return the processor time of a generation's telemetry, in seconds, in all threads."""
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{endpoint}"
    providers = Providers(
        Signals(exports_traces=True, exports_metrics=True, prometheus_listen=None)
    )
    assert providers.tracers is not None
    assert providers.processor is not None
    assert providers.meters is not None
    traces = Traces(providers.tracers, providers.processor, step_spans=False, prompts=False)
    metrics = Metrics(
        providers.meters.get_meter("benchmark"), lambda: Load(0, 0, {}, {}), {}, ["shapes"]
    )
    begun_s = time.process_time()
    for _ in range(GENERATIONS):
        tell_of_one(traces, metrics)
        providers.tracers.force_flush()
    cost_s = (time.process_time() - begun_s) / GENERATIONS
    asyncio.run(providers.close())
    return cost_s


def tell_of_one(traces: Traces, metrics: Metrics) -> None:
    """Do what telemetry does for one generation that ran alone."""
    began_at = time.monotonic()
    span = traces.begin("shapes", GenerationRequest("a picture"), began_at)
    trail = Trail(began_at, "shapes", queued_at=began_at)
    traces.begin_flight(trail, span)
    image = trail.add_image()
    image.started_at = image.text_encoded_at = time.monotonic()
    for step in range(STEPS):
        now = time.monotonic()
        forward = SharedForward(now, now, 2, ((image, step),))
        metrics.forward_made(forward)
        traces.make_forward(forward)
        image.step_ends.append(time.monotonic())
    image.denoised_at = image.decoded_at = time.monotonic()
    image.encoding_at = image.encoded_at = trail.ended_at = time.monotonic()
    traces.make_phases(trail)
    metrics.flight_ended(trail)
    metrics.generation_ended("shapes", "completed", None, 1.0)
    traces.end(span, "completed", None, None, time.monotonic())


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
