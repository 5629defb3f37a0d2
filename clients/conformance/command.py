"""The conformance kit as a command."""

import argparse
import fnmatch
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from safelight.testing import Vector, load_vectors

from clients.conformance.kit import VECTORS, Result, run_vectors
from clients.conformance.runners import BuildError, Runner, find_runners

_PARALLEL_RUNNERS = 5
"""Runners mostly wait."""

_Report: TypeAlias = tuple[str, bool]
"""Text about a runner, and whether the runner has passed."""


def main() -> int:
    """Try all languages; return 0 if each passes all vectors but its known failures."""
    parser = argparse.ArgumentParser(
        prog="python -m clients.conformance",
        description="Try the clients of all languages on the vectors of the contract.",
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="runner to try; repeatable")
    parser.add_argument("--vectors", default="*", help="pattern of the names of vectors")
    options = parser.parse_args()
    runners = [each for each in find_runners() if not options.only or each.name in options.only]
    vectors = [
        each for each in load_vectors(VECTORS) if fnmatch.fnmatchcase(each["name"], options.vectors)
    ]
    if not runners or not vectors:
        parser.error("no runner or no vector has this name")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ThreadPoolExecutor(_PARALLEL_RUNNERS) as pool:
        # First all builds, which would disturb the deadlines of vectors.
        reports = [*pool.map(_prepare, runners)]
        tried = [runner for runner, report in zip(runners, reports, strict=True) if report is None]
        reports += pool.map(lambda runner: _try(runner, vectors, stop), tried)
    if stop.is_set():
        return 130
    finished = [report for report in reports if report is not None]
    for text, _ in finished:
        print(text)
    print(f"{len(vectors)} vectors")
    return 0 if all(is_passed for _, is_passed in finished) else 1


def _prepare(runner: Runner) -> _Report | None:
    """Build a runner; return a report if it cannot be tried."""
    missing = runner.find_missing()
    if missing is not None:
        return f"{runner.name:20} skipped: {missing} fails", True
    try:
        runner.build()
    except (BuildError, OSError) as error:
        return f"{runner.name:20} cannot be built\n{error}", False
    return None


def _try(runner: Runner, vectors: Sequence[Vector], stop: threading.Event) -> _Report:
    """Play the vectors to a runner; return the report."""
    begun = time.monotonic()
    try:
        results = run_vectors(runner, vectors, stop=stop)
    except OSError as error:
        return f"{runner.name:20} does not start\n{error}", False
    failed = {result.name for result in results if result.problems}
    known = failed & runner.known_failures.keys()
    surprises = [
        result
        for result in results
        if (result.name in failed) != (result.name in runner.known_failures)
    ]
    summary = (
        f"{runner.name:20} {len(results) - len(failed):4} passed {len(failed - known):4} failed "
        f"{len(known):4} known failures {time.monotonic() - begun:6.1f} s"
    )
    return "\n".join([*map(_describe, surprises), summary]), not surprises


def _describe(result: Result) -> str:
    if not result.problems:
        return f"{result.name!r} passes, and is listed as a known failure"
    return "\n  ".join([f"{result.name!r} fails after {result.seconds:.1f} s:", *result.problems])
