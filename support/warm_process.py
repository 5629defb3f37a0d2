"""Warm process: a fork of a process that has imported the service's libraries.

This saves seconds of imports. Otherwise it resembles a new process, with its own environment,
arguments, standard output and standard error.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from types import TracebackType
from typing import IO, ClassVar, Self

import pytest

_CONTEXT = multiprocessing.get_context("forkserver")
_LIBRARIES = (
    "safelight_service.cli",
    "safelight_service.grpc_server.server",
    "support.rehearsed_schedulers",
)


class WarmProcess:
    """Running module, with the part of `subprocess.Popen` that the tests use."""

    is_prepared: ClassVar[bool] = False

    @classmethod
    def prepare(cls, environment: Mapping[str, str]) -> None:
        """Start to import the libraries in a separate process, with these variables."""
        _CONTEXT.set_forkserver_preload(list(_LIBRARIES))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            forkserver.ensure_running()
        cls.is_prepared = True

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], stderr: str) -> None:
        """Run the arguments of `python -m`; append standard error to the file `stderr`."""
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        with sender:
            self._process = _CONTEXT.Process(
                target=_run, args=(command, dict(environment), sender, stderr)
            )
            self._process.start()
        self.stdout: IO[str] = os.fdopen(os.dup(receiver.fileno()))
        receiver.close()

    def __enter__(self) -> Self:
        """Return the process."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until the process has ended."""
        self.stdout.close()
        self._process.join()
        self._process.close()

    @property
    def pid(self) -> int:
        """Id of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait up to `timeout` seconds, and return the exit code.

        Raises:
            subprocess.TimeoutExpired: the process is still running.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self._process.exitcode


def run_warm(
    command: Sequence[str], environment: Mapping[str, str], timeout_s: float = 60
) -> "subprocess.CompletedProcess[str]":
    """Run what would follow `python -m` to its end; return its output."""
    with (
        tempfile.NamedTemporaryFile("r+") as stderr,
        WarmProcess(command, environment, stderr.name) as process,
    ):
        try:
            output = process.stdout.read()
            code = process.wait(timeout_s)
        finally:
            process.kill()
        return subprocess.CompletedProcess(command, code, output, stderr.read())


def _run(
    command: Sequence[str], environment: Mapping[str, str], stdout: Connection, stderr: str
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(stdout.fileno(), sys.stdout.fileno())
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_APPEND), sys.stderr.fileno())
    stdout.close()
    module, *sys.argv[1:] = command
    runpy.run_module(module, run_name="__main__", alter_sys=True)
