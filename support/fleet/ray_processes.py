"""Ray processes: a further node of a local cluster, and its engines, to kill and freeze."""

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from support.fleet.ray_cluster import RayCluster

START_S = 120.0
"""Longest wait for engines that start."""


class RayNode:
    """A node that joins a cluster again after each death."""

    def __init__(self, address: str) -> None:
        """`address` is that of the cluster."""
        self._address = address
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Join the cluster; return when the node's raylet has started."""
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += ["--address", self._address, "--num-cpus", "2", "--disable-usage-stats"]
        command += ["--object-store-memory", "100000000"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout is not None
        _skip_to("Ray runtime started", self._process.stdout)

    def kill(self) -> None:
        """Kill all its processes by SIGKILL, if it runs."""
        if self._process is None:
            return
        with self._process as process:
            for each in [process.pid, *_descendants_of(process.pid)]:
                _signal(each, signal.SIGKILL)
        self._process = None


class Engines:
    """The engines of a cluster, wherever they run."""

    def __init__(self, cluster: RayCluster, count: int, rng: random.Random) -> None:
        """`count` is how many the cluster has, and `rng` chooses among them."""
        self._cluster = cluster
        self._count = count
        self._title = f"ray::ServeReplica:{cluster.application}:"
        self._rng = rng
        self._frozen: list[int] = []

    def kill(self) -> None:
        """Kill one."""
        self._signal_one(signal.SIGKILL)

    def freeze(self) -> None:
        """Freeze one."""
        self._frozen = self._signal_one(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the frozen one, unless Serve has replaced it; return when all answer."""
        for process in self._frozen:
            _signal(process, signal.SIGCONT)
        self.wait()

    def wait(self) -> None:
        """Wait until all engines answer.

        Raises:
            TimeoutError: they have not in two minutes.
        """
        give_up_at = time.monotonic() + START_S
        while time.monotonic() < give_up_at:
            with suppress(Exception):  # of Ray, for one that has died
                if len(self._cluster.list_processes()) == self._count:
                    return
            time.sleep(0.2)
        raise TimeoutError("the engines have not come back")

    def _signal_one(self, number: int) -> list[int]:
        engines = [process for process, title in _titles() if title.startswith(self._title)]
        chosen = self._rng.sample(engines, k=min(1, len(engines)))
        for process in chosen:
            _signal(process, number)
        return chosen


def _titles() -> list[tuple[int, str]]:
    """Return the command line of each process."""
    titles = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
            titles.append((int(folder.name), command.decode(errors="replace")))
    return titles


def _descendants_of(process_id: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(folder.name))
    found = list(children.get(process_id, ()))
    for each in found:
        found += children.get(each, ())
    return found


def _signal(process_id: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process_id, number)


def _skip_to(text: str, lines: IO[str]) -> None:
    """Read lines up to one with a text.

    Raises:
        RuntimeError: there is none.
    """
    read: list[str] = []
    while line := lines.readline():
        read.append(line)
        if text in line:
            return
    raise RuntimeError("".join(read))
