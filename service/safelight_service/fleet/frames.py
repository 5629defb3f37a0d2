"""Frame: the unit that an engine host streams to a front; every part can be pickled."""

import copy
import time
from dataclasses import dataclass, replace

from safelight_service.core.errors import SafelightError
from safelight_service.core.events import Accepted, Completed, Event
from safelight_service.core.request import (
    AdapterUse,
    GenerationRequest,
    OutputOptions,
    Parameters,
    PreviewOptions,
    ResolvedRequest,
)
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.core.timeline import ImageTimeline, Timeline


@dataclass(frozen=True, slots=True)
class Offer:
    """The host has loaded the model and resolved the request."""

    accepted: Accepted
    model_identity: str
    marking: str


@dataclass(frozen=True, slots=True)
class IdentityChanged:
    """The host serves another revision of the model than the request was resolved for."""

    model_identity: str


Outcome = Offer | Completed | IdentityChanged | SafelightError


_BY_ENGINE = ("model", "pixel_count", "device_time_s", "queued_at")
"""Fields of a timeline that an engine writes, besides the images and the moments of loading."""


@dataclass(frozen=True, slots=True)
class Moments:
    """A timeline as it travels: its moments are ages in seconds, since clocks of hosts differ."""

    timeline: Timeline
    has_spans: bool = False
    """The engine's process makes the spans of the phases."""

    @classmethod
    def of(cls, timeline: Timeline) -> "Moments":
        """Read a timeline of this host."""
        now = time.monotonic()
        return cls(_shift(timeline, -now), timeline.observed is not None)

    @property
    def is_waiting(self) -> bool:
        """Whether the run waits in the queue of its engine."""
        return self.timeline.queued_at is not None and self.timeline.started_at is None

    def write_to(self, timeline: Timeline) -> None:
        """Copy the moments that an engine writes into a timeline of this host."""
        here = _shift(self.timeline, time.monotonic())
        for name in _BY_ENGINE:
            setattr(timeline, name, getattr(here, name))
        if here.loading_at is not None:  # otherwise an earlier call may have loaded the model
            timeline.loading_at, timeline.loaded_at = here.loading_at, here.loaded_at
        timeline.has_spans_elsewhere = self.has_spans
        for image in here.images:
            image.timeline = timeline
        timeline.images[:] = here.images


@dataclass(frozen=True, slots=True)
class Frame:
    """Events in order, and at last an outcome. One without either is a sign of life."""

    host: str
    """Id of the engine host."""
    events: tuple[Event, ...] = ()
    moments: Moments | None = None
    outcome: Outcome | None = None
    """None until the last frame."""


@dataclass(frozen=True, slots=True)
class RunOrder:
    """A resolved request for an engine host."""

    run_id: str
    """Unique among all runs of all fronts; names the run in later notes."""
    front: str
    """The front that watches the run."""
    accepted: Accepted
    model_identity: str
    left_s: float | None = None
    """Seconds to the deadline; None without one."""
    tenant: Tenant = NO_TENANT
    cache_scope: str = ""
    """Name of the callers that share encoded prompts."""
    token: str = ""
    """Name of the token that the work counts for."""
    run_key: str = ""
    """Name of the run in the logs of its forwards."""
    traceparent: str = ""
    """W3C trace context of the span above the run."""
    is_abandoned: bool = False
    """No caller watches it now."""
    is_joined: bool = False
    """Further callers depend on it, so its deadline does not end it."""

    def reopen(self) -> GenerationRequest:
        """Return a request that resolves to the same one."""
        return replace(
            reopen(self.accepted.request),
            model=self.accepted.model,
            generation_id=self.accepted.generation_id,
            deadline_at=None if self.left_s is None else time.monotonic() + self.left_s,
            tenant=self.tenant,
            cache_scope=self.cache_scope,
            run_key=self.run_key,
        )


def reopen(resolved: ResolvedRequest) -> GenerationRequest:
    """Return a request that resolves to `resolved` on every host with the same model."""
    parameters, preview = resolved.parameters, resolved.preview
    return GenerationRequest(
        resolved.inputs,
        Parameters(
            guidance_scale=parameters.guidance_scale,
            negative_prompt=parameters.negative_prompt,
            num_inference_steps=parameters.num_inference_steps,
            width=parameters.width,
            height=parameters.height,
            scheduler=parameters.scheduler,
            seed=parameters.seed,
            step_reuse=parameters.step_reuse,
        ),
        image_count=resolved.image_count,
        output=OutputOptions(resolved.output.mime_type, resolved.output.quality),
        preview=PreviewOptions()
        if preview is None
        else PreviewOptions(preview.interval_steps, preview.mime_type, preview.max_side_px),
        adapters=tuple(AdapterUse(use.name, use.scale) for use in resolved.adapters),
        waits_for_model=True,
    )


def _shift(timeline: Timeline, seconds: float) -> Timeline:
    """Return a copy whose moments are `seconds` later, without what an observer stored."""
    shifted = copy.copy(timeline)
    shifted.observed = None
    _shift_moments(shifted, seconds)
    shifted.images = [copy.copy(image) for image in tuple(timeline.images)]
    for image in shifted.images:
        image.timeline = shifted
        image.step_ends = [end + seconds for end in image.step_ends]
        _shift_moments(image, seconds)
    return shifted


def _shift_moments(timeline: Timeline | ImageTimeline, seconds: float) -> None:
    for name in type(timeline).__slots__:
        if name.endswith("_at") and (moment := getattr(timeline, name)) is not None:
            setattr(timeline, name, moment + seconds)
