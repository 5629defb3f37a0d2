"""Memory: resident memory of the service over a thousand generations.

The service drops embedded prompts and ended generations early here. With the default limits
these would grow for a while and hide a leak.
"""

from typing import Any

from safelight import Client

from benchmarks.harness.report import write_report
from support.running_service import run_service

GENERATIONS = 1000
EVERY = 100


def main() -> None:
    """Measure, print and save."""
    resident_mib: dict[int, float] = {}
    settings: dict[str, Any] = {
        "batching": '{"max_width": 8, "prompt_cache_mib": 1}',
        "generations": '{"keep_s": 1}',
    }
    with run_service(**settings) as service, Client(service.target) as client:
        for number in range(1, GENERATIONS + 1):
            client.text_to_image(
                f"picture {number}", width=64, height=64, num_inference_steps=2, seed=number
            )
            if number % EVERY == 0:
                resident_mib[number] = service.read_usage().resident_mib
                print(f"after {number:4} generations {resident_mib[number]:8.1f} MiB")
    first, last = resident_mib[EVERY], resident_mib[GENERATIONS]
    print(f"growth after the first {EVERY}: {last / first - 1:+.1%}")
    write_report("memory", {"resident_mib": resident_mib, "growth": last / first - 1})


if __name__ == "__main__":
    main()
