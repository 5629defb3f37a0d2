"""Heartbeat: signs of life for the watchers of a call that waits for an engine host."""

import time

from safelight_service.core.events import EventCallback, ModelLoading
from safelight_service.fleet.frames import Frame


class Heartbeat:
    """Publishes `ModelLoading` while no host has the call, as one that starts loads the model."""

    def __init__(
        self, model: str, began_at: float, on_event: EventCallback, interval_s: float
    ) -> None:
        """`began_at` is the beginning of the generation by time.monotonic."""
        self._model = model
        self._began_at = began_at
        self._on_event = on_event
        self._interval_s = interval_s
        self._heard_at = time.monotonic()

    def note(self, frame: Frame) -> None:
        """Note a frame; one without a host says that the call waits."""
        now = time.monotonic()
        if frame.events:
            self._heard_at = now
        elif not frame.host and now - self._heard_at >= self._interval_s:
            self._heard_at = now
            self._on_event(ModelLoading(self._model, None, now - self._began_at))
