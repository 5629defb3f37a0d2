"""Job: one generation on the device, from its place in the queue to its last image."""

import copy
import hashlib
import threading
import time
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Protocol

import PIL.Image
import torch

from safelight_service.engine.denoising import DenoiserProxy, Step, observe_steps
from safelight_service.engine.loading import LoadedModel
from safelight_service.engine.preview import unpack
from safelight_service.generation import (
    Event,
    Image,
    Preview,
    Progress,
    Queued,
    ResolvedPreview,
    ResolvedRequest,
)
from safelight_service.image_file import encode_image, encode_preview


class JobCancelledError(Exception):
    """Raised inside a pipeline to stop it; never leaves the engine."""


@dataclass(slots=True)
class JobTimings:
    """Seconds by phase, all images together."""

    queue_s: float = 0.0
    text_encode_s: float = 0.0
    denoise_s: float = 0.0
    decode_s: float = 0.0
    image_encode_s: float = 0.0


class Outbox(Protocol):
    """Where a job's events go; `mailbox.py` describes the methods."""

    def post(self, event: Event) -> None:
        """Add an event."""

    def post_image(self, image: Future[Event]) -> None:
        """Add an image that is being encoded."""

    def post_preview(self, preview: Future[Event]) -> None:
        """Add a preview that is being encoded."""

    def close(self, outcome: JobTimings | BaseException) -> None:
        """End with what the job took, or why it failed."""


class Job:
    """A valid request, bound to a loaded model."""

    def __init__(
        self, model: LoadedModel, request: ResolvedRequest, outbox: Outbox, encoders: Executor
    ) -> None:
        self.model = model
        self.request = request
        self.outbox = outbox
        self.timings = JobTimings()
        self._encoders = encoders
        self._cancelled = threading.Event()
        self._created_at = time.monotonic()
        self._started_at = 0.0
        self._steps_made = 0

    def cancel(self) -> None:
        """Have the job stop before its next denoising step; from any thread."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the job was told to stop."""
        return self._cancelled.is_set()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the job was started; 0 before."""
        return time.monotonic() - self._started_at if self._started_at else 0.0

    def tell_position(self, position: int, estimated_wait_s: float | None) -> None:
        """Tell the caller the job's place in the queue."""
        self.outbox.post(Queued(position, estimated_wait_s))

    def run(self) -> None:
        """Make all images, on the device thread.

        Raises:
            JobCancelledError: the job was cancelled.
        """
        self._started_at = time.monotonic()
        self.timings.queue_s = self._started_at - self._created_at
        for index in range(self.request.image_count):
            self._make_image(index)

    def _make_image(self, index: int) -> None:
        seed = self.request.parameters.seed + index
        phases = _PhaseClock(self.timings)
        pipeline = self._prepare_pipeline(index, phases)
        generator = torch.Generator("cpu").manual_seed(seed)
        result = pipeline(**self.model.adapter.call_arguments(self.request), generator=generator)
        phases.end()
        picture = result.images[0]
        is_flagged = bool((getattr(result, "nsfw_content_detected", None) or [False])[0])
        self.outbox.post_image(
            self._encoders.submit(self._encode_image, index, seed, picture, is_flagged)
        )

    def _prepare_pipeline(self, index: int, phases: "_PhaseClock") -> Any:
        """Make a shallow copy of the pipeline that this job alone observes."""

        def before_forward() -> None:
            self._stop_if_cancelled()
            phases.enter_denoising()

        def on_step(step: Step) -> None:
            phases.end_step()
            self._tell_progress(index, step.number)
            self._send_preview(index, step)
            self._stop_if_cancelled()

        self._stop_if_cancelled()
        adapter = self.model.adapter
        pipeline = copy.copy(adapter.pipeline)
        parameters = self.request.parameters
        scheduler = adapter.schedulers.make(parameters.scheduler)
        observe_steps(scheduler, parameters.num_inference_steps, on_step)
        denoiser = getattr(pipeline, adapter.denoiser_name)
        # Past diffusers' __setattr__, which would look the proxy's class up as a component.
        vars(pipeline)["scheduler"] = scheduler
        vars(pipeline)[adapter.denoiser_name] = DenoiserProxy(denoiser, before_forward)
        return pipeline

    def _stop_if_cancelled(self) -> None:
        if self.is_cancelled:
            raise JobCancelledError

    def _tell_progress(self, index: int, step: int) -> None:
        step_count = self.request.parameters.num_inference_steps
        self._steps_made += 1
        remaining = self.request.image_count * step_count - self._steps_made
        elapsed = self.elapsed_s
        estimate = elapsed / self._steps_made * remaining
        self.outbox.post(Progress(step, step_count, index, elapsed, estimate))

    def _send_preview(self, index: int, step: Step) -> None:
        wanted = self.request.preview
        colours = self.model.latent_colours
        is_last = step.number == self.request.parameters.num_inference_steps
        if wanted is None or colours is None or is_last or step.number % wanted.interval_steps:
            return
        parameters = self.request.parameters
        latents = unpack(
            self.model.adapter.pipeline, step.predict_clean(), parameters.width, parameters.height
        )
        picture = colours.draw(latents)
        if picture is not None:
            encoding = self._encoders.submit(
                self._encode_preview, index, step.number, picture, wanted
            )
            self.outbox.post_preview(encoding)

    def _encode_preview(
        self, index: int, step: int, picture: PIL.Image.Image, wanted: ResolvedPreview
    ) -> Event:
        parameters = self.request.parameters
        scale = wanted.max_side_px / max(parameters.width, parameters.height)
        width = max(1, round(parameters.width * scale))
        height = max(1, round(parameters.height * scale))
        picture = picture.resize((width, height), PIL.Image.Resampling.BICUBIC)
        data = encode_preview(picture, wanted.mime_type)
        return Preview(index, step, wanted.mime_type, width, height, data)

    def _encode_image(
        self, index: int, seed: int, picture: PIL.Image.Image, is_flagged: bool
    ) -> Event:
        begun_at = time.monotonic()
        data = encode_image(picture, self.request, seed=seed, model=self.model.name)
        self.timings.image_encode_s += time.monotonic() - begun_at
        mime_type = self.request.output.mime_type
        sha256 = hashlib.sha256(data).hexdigest()
        size = picture.width, picture.height
        return Image(index, mime_type, *size, seed, is_flagged, sha256, data)


class _PhaseClock:
    """Splits one pipeline call into text encoding, denoising and decoding."""

    def __init__(self, timings: JobTimings) -> None:
        self._timings = timings
        self._mark = time.monotonic()
        self._is_denoising = False

    def enter_denoising(self) -> None:
        if not self._is_denoising:
            self._is_denoising = True
            self._timings.text_encode_s += self._lap()

    def end_step(self) -> None:
        self._timings.denoise_s += self._lap()

    def end(self) -> None:
        self._timings.decode_s += self._lap()

    def _lap(self) -> float:
        now = time.monotonic()
        lap, self._mark = now - self._mark, now
        return lap
