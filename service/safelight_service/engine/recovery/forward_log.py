"""ForwardLog: the outputs of an image's forwards, from an earlier run and for a later one."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from safelight_service.engine import hardware
from safelight_service.engine.operations import Forward
from safelight_service.engine.recovery.log_writer import LogWriter
from safelight_service.engine.recovery.records import Record, flatten, restore, sign
from safelight_service.engine.recovery.stores import LogStore


class ForwardLog:
    """The log of one image. Used by the device thread, except where noted."""

    def __init__(
        self,
        name: str,
        found: Sequence[tuple[Record, bytes]],
        store: LogStore,
        writer: LogWriter,
        reserve: Callable[[int], bool],
    ) -> None:
        """`found` are records of an earlier run; `reserve` asks for bytes of the run's share."""
        self._name = name
        self._found = found
        self._store = store
        self._writer = writer
        self._reserve = reserve
        self._count = 0
        """Forwards so far."""
        self._has_begun = False
        self._is_closed = False
        """Whether it takes no more outputs."""
        self._is_dropped = False
        """Whether those taken need not be stored."""

    @property
    def step_count(self) -> int:
        """Steps that the records of the earlier run complete, or one less."""
        if not self._found:
            return 0
        counts = Counter(record.step for record, _ in self._found)
        *_, last = counts
        forward_count = counts.pop(last)  # some schedulers have steps of two forwards
        return last + (forward_count >= min(counts.values(), default=2))

    def replay(self, forward: Forward, device: torch.device) -> Any:
        """Return the logged output of the next forward; None from the first that is not logged."""
        if self._count >= len(self._found):
            return None
        record, _ = self._found[self._count]
        if record.signature != sign(forward.arguments):
            self._found = self._found[: self._count]
            return None
        self._count += 1
        tensors = [hardware.copy_to_device(tensor, device) for tensor in record.tensors]
        return restore(record.shape, tensors)

    def write(self, forward: Forward, step: int, output: Any, device: torch.device) -> None:
        """Add the output of a forward, `step` steps being complete; never waits for the device.

        The log ends at the first output that cannot be logged, or for which there is no room.
        """
        number, self._count = self._count, self._count + 1
        if self._is_closed:
            return
        tensors: list[Tensor] = []
        try:
            shape = flatten(output, tensors)
        except TypeError:
            self._is_closed = True
            return
        size = sum(tensor.nbytes for tensor in tensors)
        if self._writer.is_paused or not self._reserve(size):
            self._is_closed = True
            return
        copies, wait = hardware.copy_to_host(tensors, device)
        record = Record(number, step, sign(forward.arguments), shape, copies)

        def store() -> None:
            wait()
            self._save(record)

        self._writer.submit(size, store)

    def _save(self, record: Record) -> None:
        """Store a record; on the writer's thread."""
        if self._is_dropped:
            return
        data = record.encode(self._name)
        try:
            if self._has_begun:
                self._store.append(self._name, data)
            else:
                earlier = [each for _, each in self._found[: record.number]]
                self._store.begin(self._name, b"".join([*earlier, data]))
                self._has_begun = True
                self._found = ()
        except Exception:
            self._is_closed = self._is_dropped = True
            raise

    def close(self, *, is_dropped: bool) -> None:
        """Take no more outputs, and perhaps drop the last ones; safe to call from any thread."""
        self._is_closed, self._is_dropped = True, is_dropped
