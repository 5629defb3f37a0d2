"""Job: one generation on the device, from its place in the queue to its last image.

Each image is made by an unmodified pipeline in a greenlet: it can be left in the middle of a
heavy call and resumed with the call's result, always by the same thread. So many pipelines
share the device thread, with no locks and no handing over between threads, and whoever
schedules them sees at any moment what all of them wait for.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import greenlet
import torch

from safelight_service.core.events import Event, Progress
from safelight_service.core.request import ResolvedRequest
from safelight_service.core.timeline import Timeline
from safelight_service.engine import hardware
from safelight_service.engine.batching.cost_model import CostModel, Demand
from safelight_service.engine.calls import Call, Check, Decode, Forward
from safelight_service.engine.event_relay import EventRelay
from safelight_service.engine.models.loading import LoadedModel
from safelight_service.engine.pipeline.host_values import HostValues
from safelight_service.engine.pipeline.preview import unpack
from safelight_service.engine.pipeline.proxies import DenoiserProxy, VaeProxy
from safelight_service.engine.pipeline.rendering import Pixels, render_image, render_preview
from safelight_service.engine.sampling.denoising import Step, observe_steps
from safelight_service.engine.sampling.noise import Noise


class Job:
    """A valid request, bound to a loaded model; its images are made side by side."""

    def __init__(
        self,
        model: LoadedModel,
        request: ResolvedRequest,
        relay: EventRelay,
        encoders: Executor,
        deadline_at: float | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.model = model
        self.request = request
        self.relay = relay
        self.encoders = encoders
        self.deadline_at = deadline_at
        self.timeline = timeline or Timeline()
        self.timeline.pixel_count = request.parameters.width * request.parameters.height
        self.timeline.queued_at = self.arrived_at = time.monotonic()
        self.images = [ImageRun(self, index) for index in range(request.image_count)]
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Have the job stop before its next denoising step; from any thread."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the job was told to stop."""
        return self._cancelled.is_set()

    @property
    def cost_model(self) -> CostModel:
        """What is known of the model at this size."""
        return self.model.cost_model(self.request.parameters.width, self.request.parameters.height)

    @property
    def is_guided(self) -> bool:
        """Whether steps have two forwards, or two rows."""
        return (self.request.parameters.guidance_scale or 0) > 1

    @property
    def is_started(self) -> bool:
        """Whether any of the images has been started; the first one always is the first."""
        return self.images[0].is_started

    @property
    def has_ended(self) -> bool:
        """Whether all images have been made."""
        return all(image.has_ended for image in self.images)

    @property
    def estimated_wait_s(self) -> float | None:
        """Seconds until the first image is expected to start."""
        starts_at = self.images[0].starts_at
        return None if starts_at is None else max(0.0, starts_at - time.monotonic())

    @property
    def started_at(self) -> float:
        """When the first image was started."""
        started_at = self.images[0].started_at
        assert started_at is not None
        return started_at

    def expected_s(self, now: float) -> float | None:
        """Seconds until all images are expected to be ready; None while that is not known."""
        expected = [image.finishes_at for image in self.images if not image.has_ended]
        known = [finishes_at for finishes_at in expected if finishes_at is not None]
        return max(0.0, max(known) - now) if len(known) == len(expected) else None

    def remaining_s(self, now: float) -> float:
        """Seconds until all images are expected to be ready; at the pace so far, at first."""
        expected_s = self.expected_s(now)
        if expected_s is not None:
            return expected_s
        made = sum(image.step_count for image in self.images)
        left = sum(image.steps_left for image in self.images)
        return (now - self.started_at) / made * left

    @property
    def widths(self) -> Counter[int]:
        """How many images shared the job's forwards: forwards by width."""
        return sum((image.widths for image in self.images), Counter())


class ImageRun:
    """One image of a job, as its pipeline makes it; belongs to the device thread."""

    def __init__(self, job: "Job", index: int) -> None:
        self.job = job
        self.index = index
        self.call: Call | None = None
        """What the pipeline waits for."""
        self.starts_at: float | None = None
        """When it is expected to start, by the clock of time.monotonic, as is the next."""
        self.finishes_at: float | None = None
        """When it is expected to be done."""
        self.promise: tuple[float, float] | None = None
        """When it was first forecast, once started, how long it would take, and those seconds."""
        self.step_count = 0
        self.row_count = 0
        """Rows of its forwards, once there has been one."""
        self.widths: Counter[int] = Counter()
        """How many images shared its forwards: forwards by width."""
        self.timeline = job.timeline.add_image()
        self.seed = job.request.parameters.seed + index
        self._noise = Noise(torch.Generator("cpu").manual_seed(self.seed), hardware.pin)
        self._context: AbstractContextManager[object] = nullcontext()
        """What the pipeline runs in, for as long as it is not left."""
        if hardware.is_asynchronous(job.model.adapter.execution_device):
            self._context = HostValues(self._noise)
        self._is_flagged: torch.Tensor | bool = False
        self._greenlet: greenlet.greenlet | None = None

    @property
    def started_at(self) -> float | None:
        """When it was started."""
        return self.timeline.started_at

    @property
    def is_started(self) -> bool:
        """Whether the pipeline has been called."""
        return self.started_at is not None

    @property
    def has_ended(self) -> bool:
        """Whether the pipeline has returned."""
        return self.is_started and self.call is None

    @property
    def steps_left(self) -> int:
        """Denoising steps still to be made."""
        return self.job.request.parameters.num_inference_steps - self.step_count

    @property
    def demand(self) -> Demand:
        """What its steps ask for, as seen so far, or as seen of others like it."""
        if self.step_count == 0:
            return self.job.cost_model.demand(is_guided=self.job.is_guided)
        return Demand(self.widths.total() / self.step_count, self.row_count)

    def start(self) -> None:
        """Call the pipeline, and return when it waits for its first heavy call."""
        self.timeline.started_at = time.monotonic()
        self._greenlet = greenlet.greenlet(self._make)
        self.resume()

    def resume(self, result: Any = None) -> None:
        """Go on with the result of `call`, up to the next one or to the end.

        Raises:
            Exception: whatever ended the pipeline.
        """
        assert self._greenlet is not None
        with self._context:
            self.call = self._greenlet.switch(result)

    def fail(self, error: Exception) -> None:
        """Go on as though `call` had raised this error.

        Raises:
            Exception: the same, as a rule.
        """
        assert self._greenlet is not None
        with self._context:
            self.call = self._greenlet.throw(error)

    def stop(self) -> None:
        """End the pipeline where it is."""
        if self._greenlet is not None:
            with self._context:
                self._greenlet.throw()  # GreenletExit, which ends it silently

    def draw_ahead(self) -> None:
        """Draw the noise of the next step, while the device is busy with this one."""
        if self.step_count and self.steps_left and not isinstance(self._context, nullcontext):
            self._noise.draw_ahead()

    def _make(self, _: None) -> None:
        """Call the pipeline and hand its picture on; the body of the greenlet."""
        adapter = self.job.model.adapter
        generator = self._noise.generator
        pipeline = self._prepare_pipeline(generator)
        result = pipeline(**adapter.call_arguments(self.job.request), generator=generator)
        [is_flagged] = getattr(result, "nsfw_content_detected", None) or [self._is_flagged]
        pixels = Pixels(result.images[0], is_flagged)
        if pixels.is_drawn:
            self.timeline.decoded_at = time.monotonic()
        image = self.job.encoders.submit(self._render, pixels)
        self.job.relay.post(image)

    def _render(self, pixels: Pixels) -> Event:
        picture, is_flagged = pixels.take()
        self.timeline.encoding_at = time.monotonic()
        if self.timeline.decoded_at is None:
            self.timeline.decoded_at = self.timeline.encoding_at
        image = render_image(
            picture, self.job.request, self.job.model.name, self.index, self.seed, is_flagged
        )
        self.timeline.encoded_at = time.monotonic()
        return image

    def _prepare_pipeline(self, generator: torch.Generator) -> Any:
        """Make a shallow copy of the pipeline that this run alone observes."""
        adapter = self.job.model.adapter
        parameters = self.job.request.parameters
        scheduler = adapter.schedulers.make(parameters.scheduler)
        checks = {"run_safety_checker": self._check} if self.job.model.safety_checker else {}
        observe_steps(scheduler, parameters.num_inference_steps, generator, self._on_step)
        vae = VaeProxy(adapter.pipeline.vae, self._decode, self.job.model.vae_dtype)
        return self.job.model.copies.make(
            scheduler=scheduler,
            vae=vae,
            upcast_vae=vae.to,  # diffusers' own warns that it is deprecated
            **checks,
            **adapter.pipeline_attributes(self.job.request),
            **{adapter.denoiser_name: DenoiserProxy(self.job.model.denoiser, self._forward)},
            **self.job.model.text_encoders,
        )

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.row_count == 0:
            self.timeline.text_encoded_at = time.monotonic()
            self._noise.end_step()
        merger = self.job.model.merger
        arguments = merger.bind(args, kwargs)
        self.row_count = merger.count_rows(arguments)
        return _wait_for(Forward(arguments, self.row_count, merger.key(arguments)))

    def _decode(self, latents: torch.Tensor, run: Callable[[], Any]) -> Any:
        self.timeline.denoised_at = time.monotonic()
        return _wait_for(Decode(latents, run))

    def _check(
        self, images: torch.Tensor, device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor, None]:
        """Have the image checked, in place of the pipeline's `run_safety_checker`.

        The flag stays on the device; a picture that is flagged is blackened with its pixels.
        """
        self._is_flagged = _wait_for(Check(images))
        return images, None

    def _on_step(self, step: Step) -> None:
        self.step_count = step.number
        self._noise.end_step()
        self.timeline.step_ends.append(time.monotonic())
        self._tell_progress()
        self._send_preview(step)

    def _tell_progress(self) -> None:
        now = time.monotonic()
        step_total = self.job.request.parameters.num_inference_steps
        self.job.relay.post(
            Progress(
                self.step_count,
                step_total,
                self.index,
                now - self.job.started_at,
                self.job.remaining_s(now),
            )
        )

    def _send_preview(self, step: Step) -> None:
        wanted = self.job.request.preview
        colours = self.job.model.latent_colours
        if wanted is None or colours is None or not self.steps_left:
            return
        if step.number % wanted.interval_steps:
            return
        parameters = self.job.request.parameters
        latents = unpack(
            self.job.model.adapter.pipeline,
            step.predict_clean(),
            parameters.width,
            parameters.height,
        )
        cells = colours.draw(latents)
        if cells is not None:
            preview = self.job.encoders.submit(
                render_preview, Pixels(cells), self.job.request, self.index, step.number
            )
            self.job.relay.post(preview)


def _wait_for(call: Call) -> Any:
    """Leave the greenlet until the call has been run."""
    hub = greenlet.getcurrent().parent
    assert hub is not None
    return hub.switch(call)
