"""Routers in simulated time: three engines, requests of several sizes, a load of 0.7.

The load is relative to what 36 callers without a pause get with the product's router. A real fleet
makes too few generations in a minute for a 99th percentile; `python -m benchmarks.fleet` has one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.fleet.goals import percentile
from benchmarks.fleet.mixed_sizes import CALLERS, ENGINES, LOAD, SIZES, STEP_S, STEPS
from benchmarks.harness.report import write_report
from support.fleet.simulated_fleet import (
    Call,
    Router,
    SimulatedFleet,
    Traffic,
    choose_fewest_calls,
    choose_least_cost,
    make_round_robin,
)

SECONDS = 8000.0
TRAFFIC = {
    "six shapes of equal cost": Traffic(dict.fromkeys(SIZES, 1.0), STEP_S),
    "512² and 1024², nine to one": Traffic({(512, 512): 9, (1024, 1024): 1}, STEP_S),
    "512², 768² and 1024², 60, 25 and 15 %": Traffic(
        {(512, 512): 60, (768, 768): 25, (1024, 1024): 15}, STEP_S
    ),
}
OURS, ROBIN = "Safelight's", "round robin"


@dataclass(frozen=True, slots=True)
class Figures:
    """Latency and batch width with one router."""

    p50_s: float
    p99_s: float
    mean_width: float
    p99_by_round_robin: float


def main() -> None:
    """Measure, print and save."""
    figures = {name: measure(traffic) for name, traffic in TRAFFIC.items()}
    for name, by_router in figures.items():
        print(name)
        print(f"  {'router':<18}{'p50 s':>8}{'p99 s':>8}{'width':>8}{'by robin':>10}")
        for router, each in by_router.items():
            print(
                f"  {router:<18}{each.p50_s:>8.2f}{each.p99_s:>8.2f}{each.mean_width:>8.2f}"
                f"{each.p99_by_round_robin:>10.2f}"
            )
    write_report(
        "routing",
        {
            name: {router: asdict(each) for router, each in by_router.items()}
            for name, by_router in figures.items()
        },
    )


def measure(traffic: Traffic, seconds: float = SECONDS) -> dict[str, Figures]:
    """Give all routers the same requests."""
    capacity = SimulatedFleet(ENGINES, traffic, choose_least_cost).run_closed(CALLERS, 400)
    routers: dict[str, Router] = {
        OURS: choose_least_cost,
        "Serve's default": choose_fewest_calls,
        ROBIN: make_round_robin(),
    }
    calls = {
        name: SimulatedFleet(ENGINES, traffic, router).run_open(LOAD * capacity, seconds)
        for name, router in routers.items()
    }
    robin_p99_s = percentile([call.latency_s for call in calls[ROBIN]], 0.99)
    return {name: summarise(each, robin_p99_s) for name, each in calls.items()}


def summarise(calls: Sequence[Call], robin_p99_s: float) -> Figures:
    """Return the figures of a router."""
    seconds = [call.latency_s for call in calls]
    width = sum(call.image_count for call in calls) / STEPS / len(calls)
    p99_s = percentile(seconds, 0.99)
    return Figures(percentile(seconds, 0.5), p99_s, width, p99_s / robin_p99_s)


if __name__ == "__main__":
    main()
