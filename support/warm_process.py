"""Processes forked from one that has imported the service's libraries, which takes seconds.

A process that is started so differs from one of its own by that only: each has its environment,
its arguments, its standard output and its standard error.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
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
    """A module that is run with arguments, with what of `subprocess.Popen` the tests use."""

    is_prepared: ClassVar[bool] = False

    @classmethod
    def prepare(cls, environment: Mapping[str, str]) -> None:
        """Begin to import the libraries, in a process of their own, with these variables."""
        _CONTEXT.set_forkserver_preload(list(_LIBRARIES))
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            forkserver.ensure_running()
        cls.is_prepared = True

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], stderr: str) -> None:
        """Run what would follow `python -m`; `stderr` is the path of a file that it appends to."""
        receiver, sender = _CONTEXT.Pipe(duplex=False)
        with sender:
            self._process = _CONTEXT.Process(
                target=_run, args=(command, dict(environment), sender, stderr)
            )
            self._process.start()
        self.stdout: IO[str] = os.fdopen(os.dup(receiver.fileno()))
        receiver.close()

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until it has ended."""
        self.stdout.close()
        self._process.join()
        self._process.close()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code; `subprocess.TimeoutExpired` if it runs for longer, in seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return self._process.exitcode


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
