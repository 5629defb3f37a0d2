"""Measurement: the cost of a flood to other callers, and to the memory of service and front."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safelight_service.auth.tokens import digest_token
from support.running_envoy import EDGE, run_envoy
from support.running_service import RunningService, Usage, forget_peak, run_service

TOKEN = "a-token-of-the-benchmark"
LEAD_S = 2.0
"""Seconds that a flood runs before the others are measured."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The others' calls by kind, peaks of memory above that before, and bytes of log lines."""

    others: dict[str, dict[str, Any]]
    service_growth_mib: float
    front_growth_mib: float | None
    log_bytes: int

    @property
    def failed(self) -> int:
        """Number of the others' calls that failed."""
        return sum(sum(each["failed"].values()) for each in self.others.values())


@dataclass(frozen=True, slots=True)
class Setup:
    """The service at `target`, perhaps behind a front."""

    target: str
    service: RunningService
    front_id: int | None

    def measure(self, attack: str | None, seconds: float) -> Figures:
        """Measure the others for some seconds, during an attack or without."""
        ids = [each for each in (self.service.process.pid, self.front_id) if each is not None]
        for each in ids:
            forget_peak(each)
        before = [Usage.read(each).resident_mib for each in ids]
        log_size = len(self.service.read_log())
        others = _run("others", self.target, str(seconds), TOKEN)
        assert others.stdout is not None
        others.stdout.readline()  # they are connected
        with _attack(attack, self.target):
            output = others.communicate("go\n")[0]
        grown = [
            round(Usage.read(each).peak_mib - resident_mib, 1)
            for each, resident_mib in zip(ids, before, strict=True)
        ]
        log_bytes = len(self.service.read_log()) - log_size
        return Figures(json.loads(output), grown[0], grown[1] if grown[1:] else None, log_bytes)


@contextmanager
def run_setup(*, is_fronted: bool) -> Iterator[Setup]:
    """Start the service with one token, and Envoy if it is fronted."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.toml"
        tokens.write_text(f'[[tokens]]\nname = "one"\nsha256 = "{digest_token(TOKEN)}"\n')
        # One thread of torch: several would wait for each other while the attack takes a core.
        with run_service(tokens_file=str(tokens), torch_threads="1") as service:
            if not is_fronted:
                yield Setup(service.target, service, None)
                return
            with run_envoy(Path(folder), service.target, config=EDGE) as envoy:
                yield Setup(envoy.address, service, envoy.process_id)


@contextmanager
def _attack(name: str | None, target: str) -> Iterator[None]:
    """Attack from before the block until after it."""
    if name is None:
        yield
        return
    attack = _run("attacks", name, target, TOKEN)
    try:
        time.sleep(LEAD_S)
        yield
    finally:
        attack.kill()
        attack.communicate()


def _run(module: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"benchmarks.floods.{module}", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
