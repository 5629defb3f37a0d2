"""ImageRun: one image of a job, made by an unmodified pipeline that can be suspended.

The pipeline runs in a greenlet. It can be left in the middle of a heavy operation and resumed
with the result, always by the same thread. So many pipelines share the device thread without
locks or handovers. The batcher sees at any moment which operation each of them waits for.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import greenlet
import torch

from safelight_service.core.events import Event, Progress
from safelight_service.engine import hardware
from safelight_service.engine.batching.estimates.cost_model import Demand
from safelight_service.engine.operations import Decode, Forward, Operation, SafetyCheck
from safelight_service.engine.pipeline.host_values import HostValues
from safelight_service.engine.pipeline.preview import unpack
from safelight_service.engine.pipeline.proxies import DenoiserProxy, VaeProxy
from safelight_service.engine.pipeline.rendering import Pixels, render_image, render_preview
from safelight_service.engine.recovery.forward_log import ForwardLog
from safelight_service.engine.sampling.denoising import Step, count_calls, observe_steps
from safelight_service.engine.sampling.noise import Noise
from safelight_service.engine.sampling.reuse import StepReuse, choose_steps
from safelight_service.provenance.origin import Origin
from safelight_service.provenance.samplers import sampler_name

if TYPE_CHECKING:
    from safelight_service.engine.job import Job

_CLAMPS = ("clip_sample", "clip_denoised", "thresholding")
"""Settings by which a scheduler clamps predictions, and so would hide an infinite one."""

OperationT = TypeVar("OperationT", Forward, Decode, SafetyCheck)


class ImageRun:
    """One image of a job. Used by the device thread only."""

    def __init__(self, job: "Job", index: int) -> None:
        self.job = job
        self.index = index
        self.operation: Operation | None = None
        """The operation that the suspended pipeline waits for."""
        self.starts_at: float | None = None
        """Expected start, by time.monotonic; None without a forecast."""
        self.finishes_at: float | None = None
        """Expected end, by time.monotonic; None without a forecast."""
        self.promise: tuple[float, float] | None = None
        """First forecast after its start: the moment it was made, and the seconds until the end."""
        self.step_count = 0
        self.row_count = 0
        """Rows of its last forward; 0 before the first one."""
        self.widths: Counter[int] = Counter()
        """Number of its forwards by width, the number of images that shared one."""
        self.recovered_step_count = 0
        """Steps whose forwards came from the log."""
        self._log = None if job.log is None else job.log.images[index]
        self._is_replaying = False
        self.timeline = job.timeline.add_image()
        parameters = job.request.parameters
        self.seed = parameters.seed + index
        self.reuse = StepReuse(
            choose_steps(
                parameters.num_inference_steps,
                parameters.step_reuse or 0.0,
                job.model.reuse_curves.get(parameters.scheduler),
            )
        )
        self._noise = Noise(torch.Generator("cpu").manual_seed(self.seed), hardware.pin)
        self._context: AbstractContextManager[object] = nullcontext()
        """Entered whenever the pipeline runs, and left when it is suspended."""
        if hardware.is_asynchronous(job.model.adapter.execution_device):
            self._context = HostValues(self._noise)
        self._is_flagged: torch.Tensor | bool = False
        self._checks: list[torch.Tensor] = []
        """Whether values are finite of which the pixels may not show it, bools () on the device."""
        self._sampler = ""
        """The scheduler's name in the image file."""
        self._scheduler: Any = None
        self._clamps = False
        """Whether the scheduler clamps predictions."""
        self._calls_per_step = 1.0
        """Calls of the scheduler for each step, on average; right from the first forward on."""
        self._computed_call_count = 0
        """Calls of the scheduler with outputs of forwards."""
        self._counted_forward_count = 0
        """Forwards before the last of them."""
        self._greenlet: greenlet.greenlet | None = None

    @property
    def started_at(self) -> float | None:
        """Start, by time.monotonic; None before."""
        return self.timeline.started_at

    @property
    def is_started(self) -> bool:
        """Whether the pipeline has been called."""
        return self.started_at is not None

    @property
    def has_ended(self) -> bool:
        """Whether the pipeline has returned."""
        return self.is_started and self.operation is None

    @property
    def is_held(self) -> bool:
        """Whether it has to wait for graphs before its first forward."""
        return (
            isinstance(self.operation, Forward)
            and not self.widths
            and not self.job.model.is_ready_for(self.operation)
        )

    @property
    def is_runnable(self) -> bool:
        """Whether it waits for a forward that can run now."""
        return isinstance(self.operation, Forward) and not self.is_held

    @property
    def steps_left(self) -> int:
        """Number of the remaining denoising steps."""
        return self.job.request.parameters.num_inference_steps - self.step_count

    @property
    def computed_steps_left(self) -> int:
        """Number of the remaining steps that run forwards."""
        return self.reuse.count_computed(
            self.step_count, self.job.request.parameters.num_inference_steps
        )

    @property
    def demand(self) -> Demand:
        """Demand of a computed step: measured, or that of similar images before the first one."""
        if not self._computed_call_count:
            return self.job.cost_model.demand(is_guided=self.job.is_guided)
        forwards_per_call = self._counted_forward_count / self._computed_call_count
        return Demand(forwards_per_call * self._calls_per_step, self.row_count)

    @property
    def first_demand(self) -> Demand:
        """Demand of a computed step by the scheduler and the first forward alone."""
        return Demand(self._calls_per_step, self.row_count)

    def operation_as(self, kind: type[OperationT]) -> OperationT:
        """Return `operation`, which must be of that kind."""
        assert isinstance(self.operation, kind)
        return self.operation

    def start(self) -> None:
        """Call the pipeline, and return when it waits for its first operation."""
        self.timeline.started_at = time.monotonic()
        self._greenlet = greenlet.greenlet(self._make)
        self._switch(None)
        if self._log is not None:
            self._replay(self._log)

    def resume(self, result: Any) -> None:
        """Resume with the result of `operation`, and return at the next one or at the end.

        Raises:
            Exception: any error of the pipeline.
        """
        if self._log is not None and isinstance(self.operation, Forward):
            self._log.write(self.operation, self.step_count, result, self._device)
        self._switch(result)

    def fail(self, error: Exception) -> None:
        """Resume by raising the error of `operation` in the pipeline.

        Raises:
            Exception: the same error, unless the pipeline handles it.
        """
        assert self._greenlet is not None
        with self._context:
            self.operation = self._greenlet.throw(error)

    def stop(self) -> None:
        """End the pipeline at its present operation."""
        if self._greenlet is not None:
            with self._context:
                self._greenlet.throw()  # GreenletExit, which ends a greenlet silently

    def draw_ahead(self) -> None:
        """Draw the noise of the next step while the device works on this one."""
        if self.step_count and self.steps_left and not isinstance(self._context, nullcontext):
            self._noise.draw_ahead()

    @property
    def _device(self) -> torch.device:
        device: torch.device = self.job.model.adapter.execution_device
        return device

    def _switch(self, result: Any) -> None:
        assert self._greenlet is not None
        with self._context:
            self.operation = self._greenlet.switch(result)

    def _replay(self, log: ForwardLog) -> None:
        """Run the pipeline with logged outputs, up to the first forward that has none."""
        self._is_replaying = True
        while isinstance(self.operation, Forward):
            output = log.replay(self.operation, self._device)
            if output is None:
                break
            self._switch(output)
        self._is_replaying = False
        self.recovered_step_count = self.step_count
        if self.step_count:
            self._post_progress()

    def _make(self, _: None) -> None:
        """Call the pipeline and post its image; the body of the greenlet."""
        adapter = self.job.model.adapter
        generator = self._noise.generator
        pipeline = self._prepare_pipeline(generator)
        result = pipeline(**adapter.pipeline_arguments(self.job.request), generator=generator)
        [is_flagged] = getattr(result, "nsfw_content_detected", None) or [self._is_flagged]
        pixels = Pixels(result.images[0], is_flagged, self._checks)
        if pixels.is_drawn:
            self.timeline.decoded_at = time.monotonic()
        image = self.job.encoders.submit(self._render, pixels)
        self.job.relay.post(image)

    def _render(self, pixels: Pixels) -> Event:
        picture, is_flagged = pixels.take()
        self.timeline.encoding_at = time.monotonic()
        if self.timeline.decoded_at is None:
            self.timeline.decoded_at = self.timeline.encoding_at
        model, request = self.job.model, self.job.request
        origin = Origin(model.name, model.revision, request, self.seed, self._sampler)
        image = render_image(picture, origin, self.index, is_flagged, self.job.marker)
        self.timeline.encoded_at = time.monotonic()
        return image

    def _prepare_pipeline(self, generator: torch.Generator) -> Any:
        """Make a shallow copy of the pipeline, with proxies of this run in it."""
        adapter = self.job.model.adapter
        parameters = self.job.request.parameters
        scheduler = adapter.schedulers.make(parameters.scheduler)
        self._sampler = sampler_name(type(scheduler).__name__, scheduler.config)
        checks = {"run_safety_checker": self._check} if self.job.model.safety_checker else {}
        self._clamps = any(scheduler.config.get(name) for name in _CLAMPS)
        self._scheduler = scheduler
        observe_steps(
            scheduler,
            parameters.num_inference_steps,
            generator,
            self._on_step,
            self._on_prediction,
        )
        vae = VaeProxy(adapter.pipeline.vae, self._decode, self.job.model.vae_dtype)
        return self.job.model.copies.make(
            scheduler=scheduler,
            vae=vae,
            upcast_vae=vae.to,  # diffusers' own warns that it is deprecated
            **checks,
            **adapter.pipeline_attributes(self.job.request),
            **{adapter.denoiser_name: DenoiserProxy(self.job.model.denoiser, self._forward)},
            **{
                name: encoder.within(self.job.cache_scope, self.job.mixture)
                for name, encoder in self.job.model.text_encoders.items()
            },
        )

    def _forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.row_count == 0:
            self.timeline.text_encoded_at = time.monotonic()
            self._noise.end_step()
            step_count = self.job.request.parameters.num_inference_steps
            self._calls_per_step = count_calls(self._scheduler, step_count) / step_count
        output = self.reuse.begin_forward(self.step_count)
        if output is not None:
            return output
        merger = self.job.model.merger
        arguments = merger.bind(args, kwargs)
        self.row_count = merger.count_rows(arguments)
        mixture = self.job.mixture
        key = merger.key(arguments), self.job.model.adapters_key(mixture)
        output = _wait_for(Forward(arguments, self.row_count, key, mixture))
        self.reuse.note(output)
        return output

    def _decode(self, latents: torch.Tensor, run: Callable[[], Any]) -> Any:
        self.timeline.denoised_at = time.monotonic()
        decoded = _wait_for(Decode(latents, run))
        # Pipelines and some VAEs clamp, which would turn infinity into an ordinary colour.
        self._checks += [latents.isfinite().all(), decoded[0].isfinite().all()]
        return decoded

    def _check(
        self, images: torch.Tensor, device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor, None]:
        """Check the image, in place of the pipeline's `run_safety_checker`.

        The flag stays on the device; `Pixels` blackens a flagged picture.
        """
        self._is_flagged, is_finite = _wait_for(SafetyCheck(images))
        self._checks.append(is_finite)
        return images, None

    def _on_prediction(self, predicted: torch.Tensor) -> None:
        """Count the forwards of a prediction, and note whether one is finite that is clamped."""
        if self._clamps:
            self._checks.append(predicted.isfinite().all())
        forward_count = self.widths.total()
        if forward_count > self._counted_forward_count:  # neither reused nor replayed
            self._counted_forward_count = forward_count
            self._computed_call_count += 1
            self.job.cost_model.note_demand(self.demand, is_guided=self.job.is_guided)

    def _on_step(self, step: Step) -> None:
        self.step_count = step.number
        self._noise.end_step()
        if self._is_replaying:
            return
        self.timeline.step_ends.append(time.monotonic())
        self._post_progress()
        self._post_preview(step)

    def _post_progress(self) -> None:
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

    def _post_preview(self, step: Step) -> None:
        wanted = self.job.request.preview
        colours = self.job.model.latent_colours
        if wanted is None or colours is None or not self.steps_left:
            return
        if step.number % wanted.interval_steps:
            return
        parameters = self.job.request.parameters
        predicted = step.predict_clean()
        latents = unpack(
            self.job.model.adapter.pipeline,
            predicted,
            parameters.width,
            parameters.height,
        )
        cells = colours.draw(latents)
        if cells is not None:
            pixels = Pixels(cells, checks=[predicted.isfinite().all()])
            preview = self.job.encoders.submit(
                render_preview, pixels, self.job.request, self.index, step.number
            )
            self.job.relay.post(preview)


def _wait_for(operation: Operation) -> Any:
    """Suspend the pipeline until the operation has run, and return its result."""
    hub = greenlet.getcurrent().parent
    assert hub is not None
    return hub.switch(operation)
