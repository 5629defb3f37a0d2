"""A real service in a process of its own, for tests that call it as users do."""

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from safelight_service.cli import QUIET
from support.warm_process import WarmProcess

_READY = "Safelight is ready on "
_WARNINGS = ",".join(
    (
        "error",
        # diffusers' schedulers hand tensors to numpy 2 the way of numpy 1
        "ignore:__array__ implementation:DeprecationWarning",
        "ignore:__array_wrap__ must accept context:DeprecationWarning",
    )
)
_DEFAULTS = {
    "SAFELIGHT_BATCHING": '{"max_width": 8}',
    "SAFELIGHT_CACHE": '{"enabled": false}',
}
"""No width is measured, nothing is kept in the home folder, and nothing comes from a cache."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds, on Linux."""

    thread_count: int
    descriptor_count: int
    resident_mib: float
    peak_mib: float
    """The most that has been resident since `RunningService.forget_peak`."""


@dataclass(frozen=True, slots=True)
class RunningService:
    """A service that has said that it is ready."""

    target: str
    process: subprocess.Popen[str] | WarmProcess
    log: IO[str]

    def read_log(self) -> str:
        """Return what it has logged so far."""
        # Not by the file's own position, which is where the service writes on.
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0).decode()

    def read_usage(self) -> Usage:
        """Return what its process holds now."""
        folder = Path(f"/proc/{self.process.pid}")
        lines = (folder / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        resident_mib, peak_mib = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        descriptors = sum(1 for _ in (folder / "fd").iterdir())
        return Usage(int(status["Threads"]), descriptors, resident_mib, peak_mib)

    def name_threads(self) -> dict[str, int]:
        """Count its process's threads by name, which is the same for all of Python's."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return dict(Counter((task / "comm").read_text().strip() for task in tasks))

    def forget_peak(self) -> None:
        """Measure the peak of its memory from now on."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def stop(self) -> int:
        """Stop it as a supervisor does, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def service_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which only the given settings are set, and warnings are errors."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SAFELIGHT_", "OTEL_"))}
    return {**inherited, **_DEFAULTS, **settings, "PYTHONWARNINGS": _WARNINGS}


def prepare_services() -> None:
    """Have the services that are run from now on forked from one that is prepared."""
    WarmProcess.prepare({**QUIET, "PYTHONWARNINGS": _WARNINGS})


@contextmanager
def run_service(
    *module: str,
    port: int = 0,
    warnings: str = _WARNINGS,
    otel: Mapping[str, str] | None = None,
    **settings: str,
) -> Iterator[RunningService]:
    """Run a service on a port, where 0 is any free one.

    `settings` are SAFELIGHT_... variables, lower case, and `otel` OTEL_... variables in the same
    way. Another `module` than the service's own is run with the arguments that follow its name.
    Warnings are errors inside it, too, unless `warnings` says otherwise. What it logged is shown
    if it fails to start.
    """
    variables = {f"SAFELIGHT_{name.upper()}": value for name, value in settings.items()}
    variables |= {f"OTEL_{name.upper()}": value for name, value in (otel or {}).items()}
    environment = {**service_environment(variables), "PYTHONWARNINGS": warnings}
    command = [*(module or ("safelight_service",)), "--listen", f"127.0.0.1:{port}"]
    with (
        tempfile.NamedTemporaryFile("w+") as log,
        WarmProcess(command, environment, log.name)
        if WarmProcess.is_prepared
        else subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith(_READY):
                log.seek(0)
                raise AssertionError(f"the service did not start:\n{log.read()}")
            yield RunningService(line.removeprefix(_READY).strip(), process, log)
        finally:
            process.kill()
