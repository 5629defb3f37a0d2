"""Running service: a real service in its own process, to call as users do."""

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
from typing import IO, Self

from safelight_service.library_variables import QUIET
from support.warm_process import WarmProcess

READY = "Safelight is ready on "
_WARNINGS = ",".join(
    (
        "error",
        # diffusers' schedulers pass tensors to numpy 2 as to numpy 1
        "ignore:__array__ implementation:DeprecationWarning",
        "ignore:__array_wrap__ must accept context:DeprecationWarning",
    )
)
_DEFAULTS = {
    "SAFELIGHT_BATCHING": '{"max_width": 8}',
    "SAFELIGHT_CACHE": '{"enabled": false}',
}
"""Settings without measured widths, files in the home folder, or a result cache."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Threads, descriptors and memory of a process, on Linux."""

    thread_count: int
    descriptor_count: int
    resident_mib: float
    peak_mib: float
    """Peak of resident memory since `forget_peak`."""

    @classmethod
    def read(cls, process_id: int) -> Self:
        """Return the current usage of a process."""
        folder = Path(f"/proc/{process_id}")
        lines = (folder / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        resident_mib, peak_mib = (int(status[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        descriptors = sum(1 for _ in (folder / "fd").iterdir())
        return cls(int(status["Threads"]), descriptors, resident_mib, peak_mib)


def forget_peak(process_id: int) -> None:
    """Measure the memory peak of a process from now on."""
    Path(f"/proc/{process_id}/clear_refs").write_text("5")


@dataclass(frozen=True, slots=True)
class RunningService:
    """Service that has reported that it is ready."""

    target: str
    process: subprocess.Popen[str] | WarmProcess
    log: IO[str]

    def read_log(self) -> str:
        """Return its log so far."""
        # pread leaves the file position alone, which the service shares for writing.
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0).decode()

    def read_usage(self) -> Usage:
        """Return the current threads, descriptors and memory of its process."""
        return Usage.read(self.process.pid)

    def name_threads(self) -> dict[str, int]:
        """Count the threads of its process by name; all Python threads have the same."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return dict(Counter((task / "comm").read_text().strip() for task in tasks))

    def forget_peak(self) -> None:
        """Measure the memory peak from now on."""
        forget_peak(self.process.pid)

    def stop(self) -> int:
        """Stop it with SIGTERM, as a supervisor does; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


def service_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with only these settings, in which warnings are errors."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SAFELIGHT_", "OTEL_"))}
    return {**inherited, **_DEFAULTS, **settings, "PYTHONWARNINGS": _WARNINGS}


def prepare_services() -> None:
    """Fork all services from now on from a process that has imported the libraries."""
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

    `settings` are SAFELIGHT_... variables, in lower case, and `otel` are OTEL_... variables, in
    lower case, too. `module` replaces the service's own module, and can have arguments after the
    name. Warnings in the service are errors by default.

    Raises:
        AssertionError: the service does not start; the text holds its log.
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
            if not line.startswith(READY):
                log.seek(0)
                raise AssertionError(f"the service did not start:\n{log.read()}")
            yield RunningService(line.removeprefix(READY).strip(), process, log)
        finally:
            process.kill()
