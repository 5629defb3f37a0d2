"""`python -m benchmarks.floods`: measures other callers during each flood, and before.

`--front` puts Envoy, with `deploy/envoy-edge.yaml`, between all callers and the service.
`python -m benchmarks.floods.report` puts the figures of both into docs/reliability.md.
"""

import argparse
from dataclasses import asdict

from benchmarks.floods.attacks import ATTACKS
from benchmarks.floods.measurement import Figures, run_setup
from benchmarks.harness.report import write_report
from support.running_service import prepare_services

WARM_UP_S = 2.0


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="floods by the beginnings of their names")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each flood (default: 60)")
    parser.add_argument("--front", action="store_true", help="attack Envoy in front of the service")
    options = parser.parse_args()
    names = [name for name in ATTACKS if name.startswith(tuple(options.names) or "")]
    figures: dict[str, Figures] = {}
    prepare_services()
    for name in (None, *names):
        with run_setup(is_fronted=options.front) as setup:
            setup.measure(None, WARM_UP_S)
            figures[name or "quiet"] = setup.measure(name, options.seconds)
        print_row(name or "quiet", figures[name or "quiet"])
        report = {name: asdict(each) for name, each in figures.items()}
        write_report("floods_front" if options.front else "floods", report)


def print_row(name: str, figures: Figures) -> None:
    """Print a line: the others' medians and 99th percentiles, failures, growth."""
    latencies = " ".join(
        f"{kind} {each['p50_ms'] or -1:7.1f} {each['p99_ms'] or -1:8.1f}"
        for kind, each in figures.others.items()
    )
    failures = {kind: each["failed"] for kind, each in figures.others.items() if each["failed"]}
    front = "" if figures.front_growth_mib is None else f" + {figures.front_growth_mib:.0f}"
    growth = f"{figures.service_growth_mib:.0f}{front} MiB"
    print(
        f"{name:<44} {latencies} {growth:>12} {figures.log_bytes:>8} {failures or ''}", flush=True
    )


if __name__ == "__main__":
    main()
