"""All figures of a fleet, with their goals: python -m benchmarks.fleet."""

import os
from collections.abc import Mapping
from dataclasses import asdict

from benchmarks.fleet import cancels, latency, routers, throughput
from benchmarks.fleet.goals import percentile
from benchmarks.harness.report import write_report
from support.fleet.ray_cluster import run_ray


def main() -> None:
    """Measure, print and save."""
    print(f"load of the machine: {os.getloadavg()[0]:.2f}", flush=True)
    with run_ray() as address:
        delays, goals = latency.measure(address)
        print_delays(delays)
        cancelled, further = cancels.measure(address)
        goals += further
        per_s, further = throughput.measure(address)
        goals += further
        print(f"generations per second by engines: {per_s}", flush=True)
        by_router, further = routers.measure(address)
        goals += further
    print(f"{'router':<18}{'p50 s':>8}{'p99 s':>8}{'width':>8}")
    for name, each in by_router.items():
        print(f"{name:<18}{each.p50_s:>8.2f}{each.p99_s:>8.2f}{each.mean_width:>8.2f}")
    for goal in goals:
        print(goal)
    print(f"load of the machine: {os.getloadavg()[0]:.2f}")
    write_report(
        "fleet",
        {
            "delays_ms": {name: summarise(each) for name, each in delays.items()},
            "cancels": cancelled,
            "generations_per_s": per_s,
            "routers": {name: asdict(each) for name, each in by_router.items()},
            "goals": [asdict(goal) | {"is_met": goal.is_met} for goal in goals],
        },
    )


def summarise(delays: latency.Delays) -> dict[str, dict[str, float]]:
    """Return the percentiles of each kind, in milliseconds."""
    return {
        kind: {f"p{share}": percentile(values, share / 100) for share in (50, 95, 99)}
        for kind, values in asdict(delays).items()
    }


def print_delays(delays: Mapping[str, latency.Delays]) -> None:
    """Print the percentiles of both ways."""
    print(f"{'milliseconds':<18}{'kind':<10}{'p50':>8}{'p95':>8}{'p99':>8}")
    for name, each in delays.items():
        for kind, shares in summarise(each).items():
            print(f"{name:<18}{kind:<10}" + "".join(f"{each:>8.2f}" for each in shares.values()))


if __name__ == "__main__":
    main()
