"""Job: one generation on the device, from its place in the queue to its last image."""

import threading
import time
from collections import Counter
from concurrent.futures import Executor

from safelight_service.core.request import ResolvedRequest
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.core.timeline import Timeline
from safelight_service.engine.batching.estimates.cost_model import CostModel
from safelight_service.engine.event_relay import EventRelay
from safelight_service.engine.image_run import ImageRun
from safelight_service.engine.lora.lora import NO_ADAPTERS, Mixture
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.recovery.run_logs import RunLog
from safelight_service.provenance.marker import Marker
from safelight_service.settings import ProvenanceSettings

_UNSIGNED = Marker(ProvenanceSettings())


class Job:
    """A resolved request bound to a loaded model; its images are made concurrently."""

    def __init__(
        self,
        model: LoadedModel,
        request: ResolvedRequest,
        relay: EventRelay,
        encoders: Executor,
        deadline_at: float | None = None,
        timeline: Timeline | None = None,
        tenant: Tenant = NO_TENANT,
        cache_scope: str = "",
        log: RunLog | None = None,
        mixture: Mixture = NO_ADAPTERS,
        marker: Marker = _UNSIGNED,
    ) -> None:
        self.model = model
        self.request = request
        self.relay = relay
        self.encoders = encoders
        self.deadline_at = deadline_at
        self.tenant = tenant
        self.cache_scope = cache_scope
        """Name of the callers that share embeddings of prompts with it."""
        self.log = log
        self.mixture = mixture
        """Adapters of its images."""
        self.marker = marker
        self.work_s: float | None = None
        """Forecast device seconds while it waits, as if it ran alone; None without measurements."""
        self.timeline = timeline or Timeline()
        self.timeline.pixel_count = request.parameters.width * request.parameters.height
        self.timeline.queued_at = self.arrived_at = time.monotonic()
        self.images = [ImageRun(self, index) for index in range(request.image_count)]
        self.is_settled = False
        """Whether its timeline has all its device seconds; written by the device thread."""
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop the job before its next step; safe to call from any thread."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the job has been cancelled."""
        return self._cancelled.is_set()

    @property
    def is_abandoned(self) -> bool:
        """Whether it has no watchers, and only lingers."""
        return self.timeline.abandoned_at is not None

    @property
    def cost_model(self) -> CostModel:
        """Measured costs of the model at this size."""
        return self.model.cost_model(self.request.parameters.width, self.request.parameters.height)

    @property
    def is_guided(self) -> bool:
        """Whether a step has two forwards, or a forward of two rows."""
        return (self.request.parameters.guidance_scale or 0) > 1

    @property
    def is_started(self) -> bool:
        """Whether an image has been started; images start in order."""
        return self.images[0].is_started

    @property
    def has_ended(self) -> bool:
        """Whether all images have been made."""
        return all(image.has_ended for image in self.images)

    @property
    def estimated_wait_s(self) -> float | None:
        """Seconds until the first image is expected to start; None without a forecast."""
        starts_at = self.images[0].starts_at
        return None if starts_at is None else max(0.0, starts_at - time.monotonic())

    @property
    def started_at(self) -> float:
        """Start of the first image, by time.monotonic."""
        started_at = self.images[0].started_at
        assert started_at is not None
        return started_at

    def expected_s(self, now: float) -> float | None:
        """Return the seconds until all images are expected; None without a forecast."""
        expected = [image.finishes_at for image in self.images if not image.has_ended]
        known = [finishes_at for finishes_at in expected if finishes_at is not None]
        return max(0.0, max(known) - now) if len(known) == len(expected) else None

    def remaining_s(self, now: float) -> float:
        """Return the seconds until all images are expected; extrapolated without a forecast."""
        expected_s = self.expected_s(now)
        if expected_s is not None:
            return expected_s
        made = sum(image.step_count for image in self.images)
        left = sum(image.steps_left for image in self.images)
        return (now - self.started_at) / made * left

    @property
    def widths(self) -> Counter[int]:
        """Number of the job's forwards by width, the number of images that shared one."""
        return sum((image.widths for image in self.images), Counter())
