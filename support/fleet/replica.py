"""Replica: a real service on a port of its own, which one can kill, freeze and start again."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from safelight import Client, GenerationNotFoundError

from support.running_service import RunningService, run_service


class Replica:
    """A service that returns on the same port after each death."""

    def __init__(self, **settings: str) -> None:
        """`settings` are those of `run_service`."""
        self._settings = settings
        self._stack = ExitStack()
        self._service: RunningService | None = None
        self._port = 0
        self._lines: list[dict[str, Any]] = []

    @property
    def target(self) -> str:
        """HOST:PORT, the same after each start."""
        return f"127.0.0.1:{self._port}"

    def find_lines(self, event: str) -> list[dict[str, Any]]:
        """Return all log lines of an event, of this process and of earlier ones."""
        lines = self._lines + ([] if self._service is None else _read_lines(self._service))
        return [line for line in lines if line["event"] == event]

    def start(self) -> None:
        """Start the service; return when it is ready."""
        settings: Any = {**self._settings, "log_format": "json"}
        running = run_service(port=self._port, **settings)
        self._service = self._stack.enter_context(running)
        self._port = int(self._service.target.rpartition(":")[2])

    def kill(self) -> None:
        """Kill the service by SIGKILL, if it runs."""
        if self._service is not None:
            self._service.process.kill()
            self._service.process.wait()
            self._lines += _read_lines(self._service)
            self._service = None
            self._stack.close()

    def freeze(self) -> None:
        """Stop the service by SIGSTOP: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue a frozen service."""
        self._signal(signal.SIGCONT)

    def holds(self, generation_id: str) -> bool:
        """Whether the service itself runs or keeps a generation."""
        with Client(self.target) as client:
            try:
                with client.watch(generation_id) as generation:
                    next(generation)
            except GenerationNotFoundError:
                return False
        return True

    def _signal(self, number: int) -> None:
        assert self._service is not None
        self._service.process.send_signal(number)


@contextmanager
def open_replicas(count: int, **settings: str) -> Iterator[list[Replica]]:
    """Start replicas; kill them at the end."""
    replicas = [Replica(**settings) for _ in range(count)]
    try:
        for replica in replicas:
            replica.start()
        yield replicas
    finally:
        for replica in replicas:
            replica.kill()


def _read_lines(service: RunningService) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.read_log().splitlines() if line.endswith("}")]
