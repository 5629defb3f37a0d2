"""RunLogs: opens the logs of a run's images, and removes them at its end."""

import asyncio
import hashlib
import threading
import time
from collections.abc import Sequence

from safelight_service.cache.key import cache_key
from safelight_service.core.backend import Prepared
from safelight_service.core.timeline import Timeline
from safelight_service.engine.recovery.forward_log import ForwardLog
from safelight_service.engine.recovery.log_writer import LogWriter
from safelight_service.engine.recovery.records import decode
from safelight_service.engine.recovery.stores import FolderStore, LogStore, RedisStore
from safelight_service.settings import Settings

_NOTE_S, _NOTE_POLL_S = 2.0, 0.1
"""Longest wait for the note that an ended run was cancelled, and the interval of looks for it."""


class RunLog:
    """The logs of a run, one for each image."""

    def __init__(
        self,
        names: Sequence[str],
        found: Sequence[bytes],
        store: LogStore,
        writer: LogWriter,
        max_bytes: int,
    ) -> None:
        """`max_bytes` bounds the records of all images."""
        self._names = names
        self._store = store
        self._writer = writer
        self._left_bytes = max_bytes
        self._reserved_bytes = 0
        self._ended_at = 0.0
        self._lock = threading.Lock()
        self.images = [
            ForwardLog(name, decode(name, log), store, writer, self._reserve)
            for name, log in zip(names, found, strict=True)
        ]
        self.step_count = sum(image.step_count for image in self.images)
        """Steps of all images that earlier runs have logged."""

    def end(self, *, is_over: bool) -> None:
        """Stop logging; remove the logs if the run is over, and nobody will continue it."""
        for image in self.images:
            image.close(is_dropped=is_over)
        if is_over:
            self._remove()
        self._ended_at = time.monotonic()
        with self._lock:
            self._left_bytes = 0
            self._writer.free(self._reserved_bytes)

    def remove_when_cancelled(self, timeline: Timeline) -> None:
        """Remove the logs of an ended run once its callers have cancelled it, perhaps by now.

        The note of a front may come after the cancel itself. Waits for it for two seconds.
        """
        if timeline.cancelled_at is not None:
            self._remove()
        elif time.monotonic() < self._ended_at + _NOTE_S:
            loop = asyncio.get_running_loop()
            loop.call_later(_NOTE_POLL_S, self.remove_when_cancelled, timeline)

    def _remove(self) -> None:
        self._writer.submit(0, lambda: self._store.remove(self._names))

    def _reserve(self, size: int) -> bool:
        with self._lock:
            if size > self._left_bytes or not self._writer.reserve(size):
                return False
            self._left_bytes -= size
            self._reserved_bytes += size
            return True


class RunLogs:
    """The logs of all runs that have a run key."""

    def __init__(self, store: LogStore, max_bytes: int, max_run_bytes: int) -> None:
        self._store = store
        self._writer = LogWriter(max_bytes)
        self._max_run_bytes = max_run_bytes

    async def open(self, prepared: Prepared, run_key: str, cache_scope: str) -> RunLog | None:
        """Open the logs of a run, with the records of earlier runs; None if the store fails."""
        if self._writer.is_paused:
            return None
        request = prepared.accepted.request
        identity = cache_key(prepared.model_identity, request, cache_scope)
        name = hashlib.sha256(f"{run_key} {identity}".encode()).hexdigest()
        names = [f"{name}-{index}" for index in range(request.image_count)]
        return await asyncio.to_thread(self._load, names)

    def close(self) -> None:
        """Store what is pending."""
        self._writer.close()

    def _load(self, names: Sequence[str]) -> RunLog | None:
        try:
            found = self._store.load(names)
        except Exception as error:  # a run never fails because of its log
            self._writer.note_failure(error)
            return None
        return RunLog(names, found, self._store, self._writer, self._max_run_bytes)


def make_run_logs(settings: Settings) -> RunLogs | None:
    """Make the logs that the settings ask for, if any."""
    recovery = settings.recovery
    if recovery is None:
        return None
    max_bytes = recovery.max_mib << 20
    if recovery.folder is not None:
        store: LogStore = FolderStore(recovery.folder, recovery.ttl_s, max_bytes)
    else:
        assert settings.fleet is not None
        store = RedisStore(settings.fleet.redis_url.get_secret_value(), recovery.ttl_s)
    return RunLogs(store, max_bytes, recovery.max_generation_mib << 20)
