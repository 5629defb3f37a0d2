"""DeviceWorkers: one worker for each device that models run on."""

from collections import defaultdict
from collections.abc import Callable

import torch

from safelight_service.engine import hardware
from safelight_service.engine.device_worker import DeviceWorker


class DeviceWorkers:
    """Workers by device, each made for the first job of its device."""

    def __init__(self, make: Callable[[torch.device], DeviceWorker]) -> None:
        self._make = make
        self._workers: dict[torch.device, DeviceWorker] = {}
        self._is_draining = False

    def __getitem__(self, device: torch.device) -> DeviceWorker:
        """Return the worker of a device, made now if it is the first use."""
        key = hardware.indexed(device)
        if key not in self._workers:
            self._workers[key] = self._make(key)
            if self._is_draining:
                self._workers[key].drain()
        return self._workers[key]

    @property
    def is_lost(self) -> bool:
        """Whether one of the devices is lost."""
        return any(worker.is_lost for worker in self._all())

    def counts(self) -> tuple[int, int]:
        """Return the numbers of waiting and of started jobs; safe to call from any thread."""
        counts = [worker.counts() for worker in self._all()]
        return sum(waiting for waiting, _ in counts), sum(running for _, running in counts)

    def device_time_s(self) -> dict[tuple[str, str], float]:
        """Return the device seconds since the start, by model and token. For any thread."""
        seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        for worker in self._all():
            for key, each in worker.device_time_s.items():
                seconds[key] += each
        return dict(seconds)

    def busy_s(self) -> dict[str, float]:
        """Return the busy seconds since the start, by device. For any thread."""
        return {str(device): worker.total_busy_s for device, worker in self._workers.copy().items()}

    def give_up_hanging(self, timeout_s: float) -> None:
        """Give up devices whose current operation takes longer than `timeout_s` seconds."""
        for worker in self._all():
            if worker.busy_s > timeout_s:
                worker.lose("an operation did not return")

    def give_up(self) -> None:
        """Give up all devices, since the process ends when one is lost."""
        for worker in self._all():
            if not worker.is_lost:
                worker.lose("another device of the process is lost")

    def drain(self) -> None:
        """Refuse new jobs and end waiting ones; running ones continue."""
        self._is_draining = True
        for worker in self._all():
            worker.drain()

    def stop(self) -> None:
        """Cancel all jobs and end the threads, except those that hang."""
        for worker in self._all():
            worker.stop()

    def _all(self) -> list[DeviceWorker]:
        return list(self._workers.values())
