"""The kit: gives the jobs of all vectors to a runner, and judges what it does."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from safelight.testing import FakeService, Vector

from clients.conformance.lines import compare_lines
from clients.conformance.runners import Runner
from support.running_gateway import run_gateway

VECTORS = Path(__file__).with_name("vectors")
JOB_S, CALLS_S, _END_S, _POLL_S = 15.0, 2.0, 5.0, 0.1
_NAME_FIELDS = {
    "Generate": "inputs",
    "WatchGeneration": "generation_id",
    "CancelGeneration": "generation_id",
    "GetModel": "model",
}


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a vector with one runner.

    Attributes:
        name: Name of the vector.
        problems: Differences between what the vector expects and what happened.
        seconds: Duration of the job.
    """

    name: str
    problems: Sequence[str]
    seconds: float


def run_vectors(
    runner: Runner,
    vectors: Sequence[Vector],
    *,
    stop: threading.Event | None = None,
    job_s: float = JOB_S,
    calls_s: float = CALLS_S,
) -> list[Result]:
    """Play vectors to a runner; return a result for each. The runner has ended then.

    Args:
        runner: The runner, which has been built.
        vectors: The vectors; those that the runner does not play are left out.
        stop: Set to return early, without the results that are missing.
        job_s: Longest time of a job in seconds; the runner is then killed and started again.
        calls_s: Longest time in seconds between the end of a job and the end of its calls.
    """
    results: list[Result] = []
    vectors = [vector for vector in vectors if runner.plays(vector["name"])]
    stop = stop or threading.Event()
    service = FakeService(vectors=vectors)
    with service as target, contextlib.ExitStack() as stack:
        if runner.through == "gateway":
            target = stack.enter_context(run_gateway(target)).url
        process: _Process | None = None
        for vector in vectors:
            if process is None:
                process = stack.enter_context(_Process(runner))
            begun = time.monotonic()
            lines, failure = process.run(make_job(vector, target), job_s, stop)
            if stop.is_set():
                process.kill()
                break
            method = vector.get("job", {}).get("method", "Generate")
            problems = compare_lines(method, vector.get("outcome", ()), lines)
            if failure is not None:
                problems.append(failure)
                process.kill()
                process = None
            problems += service.replays[vector["name"]].wait(calls_s)
            results.append(Result(vector["name"], problems, time.monotonic() - begun))
    return results


def make_job(vector: Vector, target: str) -> dict[str, Any]:
    """Return the job of a vector, with its name in the field that selects it."""
    name, given = vector["name"], vector.get("job", {})
    method = given.get("method", "Generate")
    job: dict[str, Any] = {"name": name, "target": target, "request": {}, **given, "method": method}
    if method == "ListModels":
        job["metadata"] = {**job.get("metadata", {}), "x-vector": name}
    else:
        job["request"] = {_NAME_FIELDS[method]: name, **job["request"]}
    return job


class _Process:
    """A running runner, the leader of its own process group."""

    def __init__(self, runner: Runner) -> None:
        self._errors = tempfile.TemporaryFile(  # noqa: SIM115 - `__exit__` closes it
            "w+", encoding="utf-8", errors="replace"
        )
        self._process = subprocess.Popen(
            runner.command,
            cwd=runner.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            start_new_session=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()

    def run(
        self, job: Mapping[str, Any], limit_s: float, stop: threading.Event
    ) -> tuple[list[str], str | None]:
        """Return the lines of a job, and how the runner failed, if it did or has to stop."""
        assert self._process.stdin is not None
        lines: list[str] = []
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        ends_at = time.monotonic() + limit_s
        while time.monotonic() < ends_at and not stop.is_set():
            try:
                line = self._lines.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if line is None:
                return lines, f"the runner ended: {self._last_words()}"
            if not line:
                return lines, None
            lines.append(line)
        return lines, f"the job took longer than {limit_s:g} s"

    def kill(self) -> None:
        """End the runner and all processes that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process, self._errors:
            try:
                if error is None and self._process.stdin is not None:
                    with contextlib.suppress(BrokenPipeError):
                        self._process.stdin.close()
                    self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                pass
            finally:
                self.kill()
                self._reader.join()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        return self._errors.read()[-2000:].strip() or f"exit code {self._process.returncode}"
