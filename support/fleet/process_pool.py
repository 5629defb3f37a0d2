"""Process pool: engine hosts in processes of their own, which can be killed."""

import asyncio
import itertools
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

from safelight_service.core.backend import BackendStats
from safelight_service.core.model import ModelInfo
from safelight_service.core.request import GenerationRequest
from safelight_service.fleet.frames import Frame, RunOrder
from safelight_service.fleet.pool import HostLostError, NoHostError
from safelight_service.settings import Settings
from support.fleet.messages import FORWARDS, READY, SETTINGS, receive, send
from support.warm_process import WarmProcess

_BROKEN = (OSError, EOFError)


class ProcessPool:
    """Chooses the first engine that is not excluded; starts another for each that is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = itertools.count()
        self._engines: dict[str, subprocess.Popen[str] | WarmProcess] = {}
        self._log: IO[str] = (folder / "log").open("a+")

    @property
    def forward_count(self) -> int:
        """Forwards that all engines, dead ones too, have made so far."""
        forwards = self._folder / FORWARDS
        return forwards.stat().st_size if forwards.exists() else 0

    def start_engine(self) -> None:
        """Start another engine and wait until it is ready.

        Raises:
            RuntimeError: it does not start; the text holds the log of all engines.
        """
        name = f"engine{next(self._names)}"
        command = ["support.fleet.engine_process", str(self._folder), name]
        process: subprocess.Popen[str] | WarmProcess
        if WarmProcess.is_prepared:
            process = WarmProcess(command, os.environ, self._log.name)
        else:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
        assert process.stdout is not None
        if READY not in process.stdout:
            raise RuntimeError((self._folder / "log").read_text())
        self._engines[name] = process

    def kill(self) -> None:
        """Kill the first engine, which runs all calls."""
        _end(self._engines.pop(next(iter(self._engines))))

    async def describe(self) -> tuple[ModelInfo, ...]:
        """Describe the models as the first engine sees them."""
        models: tuple[ModelInfo, ...] = await self._ask("describe")
        return models

    async def stats(self) -> tuple[BackendStats, ...]:
        """Return the load of the first engine."""
        return (await self._ask("stats"),)

    async def prepare(
        self, request: GenerationRequest, left_s: float | None, excluded: frozenset[str]
    ) -> AsyncGenerator[Frame, None]:
        """Resolve a request on the first engine."""
        async for frame in self._stream(excluded, "prepare", request, left_s):
            yield frame

    async def run(self, order: RunOrder, excluded: frozenset[str]) -> AsyncGenerator[Frame, None]:
        """Run an order on the first engine."""
        async for frame in self._stream(excluded, "run", order):
            yield frame

    async def note(self, run_id: str, *, is_abandoned: bool, is_joined: bool) -> None:
        """Do nothing: no test with processes looks at it."""

    async def note_cancelled(self, run_id: str) -> None:
        """Do nothing: no test with processes looks at it."""

    async def close(self) -> None:
        """Kill all engines."""
        while self._engines:
            self.kill()
        self._log.close()

    async def _ask(self, method: str) -> Any:
        async with self._call(frozenset(), method) as reader:
            return await receive(reader)

    async def _stream(self, excluded: frozenset[str], *call: object) -> AsyncGenerator[Frame, None]:
        async with self._call(excluded, *call) as reader:
            while True:
                frame: Frame = await receive(reader)
                yield frame
                if frame.outcome is not None:
                    return

    @asynccontextmanager
    async def _call(
        self, excluded: frozenset[str], *call: object
    ) -> AsyncIterator[asyncio.StreamReader]:
        name = next((name for name in self._engines if name not in excluded), None)
        if name is None:
            raise NoHostError
        try:
            reader, writer = await asyncio.open_unix_connection(self._folder / name)
        except _BROKEN:
            raise HostLostError from None
        try:
            await send(writer, call)
            yield reader
        except _BROKEN:
            raise HostLostError from None
        finally:
            writer.close()


@asynccontextmanager
async def open_process_pool(settings: Settings, count: int) -> AsyncIterator[ProcessPool]:
    """Start `count` engines with these settings; kill all at the end."""
    with tempfile.TemporaryDirectory(prefix="pool") as folder:  # a socket's path must be short
        (Path(folder) / SETTINGS).write_bytes(pickle.dumps(settings))
        pool = ProcessPool(Path(folder))
        try:
            for _ in range(count):
                await asyncio.to_thread(pool.start_engine)
            yield pool
        finally:
            await pool.close()


def _end(process: "subprocess.Popen[str] | WarmProcess") -> None:
    """Kill a process and wait for its end."""
    with process:
        process.kill()
