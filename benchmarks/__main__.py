"""`make bench`: all benchmarks, each in its own process, with results as JSON."""

import subprocess
import sys

BENCHMARKS = (
    "overhead",
    "throughput",
    "latency",
    "goodput",
    "fairness",
    "estimates",
    "streaming",
    "memory",
    "previews",
    "adapters",
    "gateway",
    "telemetry",
)

for name in BENCHMARKS:
    print(f"\n{name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
subprocess.run([sys.executable, "-m", "benchmarks.plot"], check=True)
