"""`python -m benchmarks.provenance`: the cost of marks, and signed images through all routes."""

import argparse
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.report import write_report
from benchmarks.provenance.routes import count_valid
from benchmarks.provenance.signing import measure_signing


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true", help="a few images, and no report")
    is_rehearsal = parser.parse_args().rehearse
    image_count = 9 if is_rehearsal else 1000
    with tempfile.TemporaryDirectory() as folder:
        costs = measure_signing(Path(folder))
        names = ("encode ms", "sign ms", "p99 ms", "processor", "tags B", "manifest B")
        print(f"{'format':<12}" + "".join(f"{name:>12}" for name in names))
        for mime_type, cost in costs.items():
            print(
                f"{mime_type:<12}{cost.encode_ms:>12.1f}{cost.sign_ms.p50:>12.2f}"
                f"{cost.sign_ms.p99:>12.2f}{cost.sign_processor_ms:>12.2f}"
                f"{cost.tag_bytes:>12}{cost.manifest_bytes:>12}"
            )
        print(f"\n{'route':<28}{'valid':>12}")
        valid = {}
        for route, count in count_valid(Path(folder), image_count):
            valid[route] = count
            print(f"{route:<28}{count:>6} of {image_count}", flush=True)
    if is_rehearsal:
        return
    figures = {mime_type: asdict(cost) for mime_type, cost in costs.items()}
    write_report(
        "provenance", {"costs": figures, "images_of_each_route": image_count, "valid": valid}
    )


if __name__ == "__main__":
    main()
