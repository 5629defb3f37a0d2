"""Fault loop: causes faults at random while callers make generations."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

PAUSE_S = 2.0, 8.0
"""Shortest and longest time between the faults of a group."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault of one process."""

    name: str
    begin: Callable[[], None]
    end: Callable[[], None]
    shortest_s: float
    longest_s: float


class FaultLoop:
    """Faults in groups: those of one group follow one another, those of two may overlap."""

    def __init__(self, seed: int, *groups: Sequence[Fault]) -> None:
        self.counts: Counter[str] = Counter()
        self.latest = ""
        self._groups = groups
        self._seed = seed
        self._is_over = threading.Event()
        self._begun_at: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Cause faults until the block ends; raise the first error of one."""
        with ThreadPoolExecutor(len(self._groups)) as pool:
            loops = [
                pool.submit(self._run, group, random.Random(self._seed + number))
                for number, group in enumerate(self._groups)
            ]
            try:
                yield
            finally:
                self._is_over.set()
            for loop in loops:
                loop.result()

    def has_met(self, began_at: float, ended_at: float) -> bool:
        """Whether a fault began between two moments, or up to a minute before."""
        return any(began_at - 60 < at < ended_at for at in self._begun_at)

    def _run(self, faults: Sequence[Fault], rng: random.Random) -> None:
        while not self._is_over.wait(rng.uniform(*PAUSE_S)):
            fault = rng.choice(faults)
            self.latest = fault.name
            self.counts[fault.name] += 1
            self._begun_at.append(time.monotonic())
            fault.begin()
            self._is_over.wait(rng.uniform(fault.shortest_s, fault.longest_s))
            fault.end()
