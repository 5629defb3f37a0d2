"""Restarts: stops, kills and restarts the service at random moments under calls with time-outs.

Every call must end by its time-out plus one second, whatever happens to the service.
"""

import argparse
import asyncio
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from safelight import AsyncClient, Client, SafelightError
from safelight.cli.app import app

from benchmarks.harness.report import write_report
from support.running_service import prepare_services, run_service

ALLOWED_S = 1.0
CALLERS = 8


class Overruns:
    """How calls have ended, and by how much they outlived their time-outs."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.worst_s = float("-inf")
        self._lock = threading.Lock()

    @contextmanager
    def measure(self, timeout_s: float) -> Iterator[None]:
        """Measure a call."""
        began_at, outcome = time.monotonic(), "OK"
        try:
            yield
        except SafelightError as error:
            outcome = type(error).__name__
        self.note(outcome, time.monotonic() - began_at - timeout_s)

    def note(self, outcome: str, overrun_s: float) -> None:
        """Note how a call has ended, and how long after its time-out."""
        with self._lock:
            self.outcomes[outcome] += 1
            self.worst_s = max(self.worst_s, overrun_s)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="of each client (default: 200)")
    parser.add_argument("--cli-calls", type=int, default=40, help="(default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    arguments = parser.parse_args()
    prepare_services()
    figures: dict[str, Any] = {}
    for name, run, calls in (
        ("blocking", run_blocking, arguments.calls),
        ("asyncio", run_asyncio, arguments.calls),
        ("command line", run_command_line, arguments.cli_calls),
    ):
        with restarting_service(random.Random(arguments.seed)) as service:
            overruns, unended = run(service.target, calls)
        figures[name] = {
            "calls": calls,
            "unended": unended,
            "worst_overrun_s": round(overruns.worst_s, 2),
            "outcomes": dict(overruns.outcomes),
            "stops": service.stop_count,
            "kills": service.kill_count,
        }
        print(name, figures[name], flush=True)
    write_report("restarts", figures)
    sys.exit(
        not all(
            figure["unended"] == 0 and figure["worst_overrun_s"] <= ALLOWED_S
            for figure in figures.values()
        )
    )


class RestartingService:
    """A service on one port that stops or dies soon after each start."""

    def __init__(self, rng: random.Random, port: int) -> None:
        self.target = f"127.0.0.1:{port}"
        self.stop_count = self.kill_count = 0
        self.has_started, self.is_over = threading.Event(), threading.Event()
        self._rng = rng
        self._port = port

    def run(self) -> None:
        """Start and end the service until `is_over` is set."""
        while not self.is_over.is_set():
            with run_service(port=self._port) as service:
                self.has_started.set()
                self.is_over.wait(self._rng.uniform(0.5, 6))
                if self._rng.random() < 0.6:
                    self.stop_count += 1
                    service.process.send_signal(signal.SIGTERM)
                    try:
                        service.process.wait(timeout=self._rng.uniform(0.5, 8))
                    except subprocess.TimeoutExpired:
                        self.kill_count += 1
                else:
                    self.kill_count += 1


@contextmanager
def restarting_service(rng: random.Random) -> Iterator[RestartingService]:
    """Run a `RestartingService` on a free port."""
    with run_service() as service:
        port = int(service.target.rpartition(":")[2])
    restarting = RestartingService(rng, port)
    thread = threading.Thread(target=restarting.run)
    thread.start()
    restarting.has_started.wait()
    try:
        yield restarting
    finally:
        restarting.is_over.set()
        thread.join()


def draw(rng: random.Random) -> dict[str, Any]:
    """Return the options of a call."""
    return {
        "num_inference_steps": rng.choice([1, 2, 4, 60]),
        "width": 64,
        "height": 64,
        "timeout": rng.uniform(0.3, 6),
    }


def run_blocking(target: str, calls: int) -> tuple[Overruns, int]:
    """Call from threads that share a client; return overruns and the number of stuck threads."""
    overruns = Overruns()

    def call(client: Client, rng: random.Random) -> None:
        for _ in range(calls // CALLERS):
            options = draw(rng)
            with overruns.measure(options["timeout"]):
                client.text_to_image("a red circle", **options)
            time.sleep(rng.uniform(0, 0.3))

    client = Client(target)
    threads = [
        threading.Thread(target=call, args=(client, random.Random(number)), daemon=True)
        for number in range(CALLERS)
    ]
    for thread in threads:
        thread.start()
    ends_at = time.monotonic() + calls / CALLERS * 8
    for thread in threads:
        thread.join(max(0, ends_at - time.monotonic()))
    return overruns, sum(thread.is_alive() for thread in threads)


def run_asyncio(target: str, calls: int) -> tuple[Overruns, int]:
    """Call from tasks that share a client; return overruns and the number of stuck tasks."""
    overruns = Overruns()

    async def call(client: AsyncClient, rng: random.Random) -> None:
        for _ in range(calls // CALLERS):
            options = draw(rng)
            with overruns.measure(options["timeout"]):
                await client.text_to_image("a red circle", **options)
            await asyncio.sleep(rng.uniform(0, 0.3))

    async def run() -> int:
        async with AsyncClient(target) as client:
            tasks = [
                asyncio.ensure_future(call(client, random.Random(number)))
                for number in range(CALLERS)
            ]
            _, unended = await asyncio.wait(tasks, timeout=calls / CALLERS * 8)
            for task in unended:
                task.cancel()
            return len(unended)

    return overruns, asyncio.run(run())


def run_command_line(target: str, calls: int) -> tuple[Overruns, int]:
    """Run the command line in this process, since the time to start another one varies."""
    overruns, rng = Overruns(), random.Random(0)

    def call(folder: str) -> None:
        for number in range(calls):
            options = draw(rng)
            arguments = ["--timeout", str(options["timeout"]), "--width", "64", "--height", "64"]
            arguments += ["--steps", str(options["num_inference_steps"]), "--target", target, "-q"]
            arguments += ["-o", str(Path(folder) / f"{number}.png")]
            began_at = time.monotonic()
            code = app(["generate", "a red circle", *arguments], standalone_mode=False)
            overruns.note(f"exit {code or 0}", time.monotonic() - began_at - options["timeout"])

    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
    ):
        thread = threading.Thread(target=call, args=(folder,), daemon=True)
        thread.start()
        thread.join(calls * 8)
    return overruns, int(thread.is_alive())


if __name__ == "__main__":
    main()
