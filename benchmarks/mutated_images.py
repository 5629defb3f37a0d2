"""Mutated images: verification of files that were damaged to break parsers.

The library verifies them in this process, so a crash ends the benchmark. Then a gateway verifies
the first tenth, each in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from urllib.parse import urlsplit

from safelight.provenance import verify
from safelight.testing import FakeService

from benchmarks.harness.report import write_report
from support.running_service import Usage
from support.signed_images.mutations import mutate
from support.signed_images.pictures import FORMATS, draw
from support.signed_images.signing import make_authority

FILES, REHEARSED_FILES = 10_000, 300
WARM_UP_SHARE = 0.1
CALLERS = 2
MAX_S, MAX_GROWTH_MIB = 5.0, 4.0
TIMEOUT_S = 30.0
_READY = "Safelight's gateway is ready on "


@dataclass(frozen=True, slots=True)
class Figures:
    """Outcomes of one way to verify.

    Attributes:
        outcomes: Number of files by state of the manifest, or by HTTP status without one.
        median_ms: Median time of a file, without the first tenth.
        longest_ms: Longest one.
        growth_mib: Growth of resident memory since then.
    """

    outcomes: dict[str, int]
    median_ms: float
    longest_ms: float
    growth_mib: float

    @property
    def is_good(self) -> bool:
        """Whether no file took long, and memory did not grow."""
        return self.longest_ms < MAX_S * 1e3 and self.growth_mib < MAX_GROWTH_MIB


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    count = REHEARSED_FILES if arguments.rehearse else arguments.files
    authority = make_authority()
    pictures = [draw(mime_type) for mime_type in FORMATS]
    files = pictures + [
        authority.sign(picture, mime_type)
        for picture, mime_type in zip(pictures, FORMATS, strict=True)
    ]

    def verify_here(image: bytes) -> str:
        try:
            verification = verify(image, trust_anchors=authority.anchor)
        except ValueError:
            return "refused"
        return verification.manifest.state

    figures = {"library": measure(files, count, verify_here, 1, os.getpid())}
    with FakeService() as target, run_gateway(target) as (url, process_id):
        address = urlsplit(url).netloc
        figures["gateway"] = measure(
            files, count // 10, lambda image: post(address, image), CALLERS, process_id
        )
    for name, figure in figures.items():
        states = ", ".join(f"{count} {state}" for state, count in figure.outcomes.items())
        verdict = "met" if figure.is_good else "MISSED"
        print(
            f"{name:<8}{figure.median_ms:7.1f} ms median{figure.longest_ms:8.1f} ms longest"
            f"{figure.growth_mib:+7.1f} MiB, goal {verdict}; {states}"
        )
    if not arguments.rehearse:
        write_report("mutated_images", {name: asdict(each) for name, each in figures.items()})
    sys.exit(0 if all(figure.is_good for figure in figures.values()) else 1)


@contextmanager
def run_gateway(target: str) -> Iterator[tuple[str, int]]:
    """Run a gateway in a process of its own; yield its URL and the id of the process."""
    command = [sys.executable, "-m", "safelight_gateway", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--target", target], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(_READY), line
        try:
            yield line.removeprefix(_READY).strip(), process.pid
        finally:
            process.terminate()


def measure(
    files: Sequence[bytes],
    count: int,
    verify_one: Callable[[bytes], str],
    callers: int,
    process_id: int,
) -> Figures:
    """Verify mutations of the files by a process."""
    spent_s: list[float] = []
    outcomes: list[str] = []

    def verify_each(seeds: range) -> None:
        for seed in seeds:
            image = mutate(files, seed)
            begun_at = time.perf_counter()
            outcome = verify_one(image)
            spent_s.append(time.perf_counter() - begun_at)
            outcomes.append(outcome)

    def verify_all(begin: int, end: int) -> None:
        with ThreadPoolExecutor(callers) as threads:
            shares = [range(begin + caller, end, callers) for caller in range(callers)]
            list(threads.map(verify_each, shares))

    warm_up = int(count * WARM_UP_SHARE)
    verify_all(0, warm_up)
    spent_s.clear()
    before = Usage.read(process_id).resident_mib
    verify_all(warm_up, count)
    growth_mib = Usage.read(process_id).resident_mib - before
    spent_s.sort()
    return Figures(
        dict(Counter(outcomes).most_common()),
        spent_s[len(spent_s) // 2] * 1e3,
        spent_s[-1] * 1e3,
        growth_mib,
    )


def post(address: str, image: bytes) -> str:
    """Post an image to the gateway; return the manifest's state or the refusal."""
    connection = HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/v1/verify", image)
        answer = connection.getresponse()
        body = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status == HTTPStatus.OK:
        return str(body["manifest"]["state"])
    return "refused" if "must be" in body["detail"] else f"{answer.status} {body['detail']}"


if __name__ == "__main__":
    main()
