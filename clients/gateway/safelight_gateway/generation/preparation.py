"""The prepared request: fitted to a served model, without fields that the model lacks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from safelight import CacheStatus, Completed, Image, Model
from safelight.models import Capabilities
from safelight.options import GenerateOptions

from safelight_gateway.generation.request import ImageRequest, ImageResult
from safelight_gateway.generation.schedulers import find_scheduler
from safelight_gateway.generation.shape import fit_shape

_GUIDANCE_OFF = 1.0
"""Guidance scale up to which guidance is off."""

_MIN_PREVIEW_SIDE_PX, _MAX_PREVIEW_SIDE_PX = 16, 512
_PREVIEW_TYPES = ("image/jpeg", "image/webp")
_UNKNOWN_SIDE_PX = 0
"""Side that every model refuses, so that no image is made before its limits are known."""


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request for one model.

    Attributes:
        request: The request, without a shape where the model's limits are known.
        model: The model.
        ignored: Names of sent fields without effect.
        preview_steps: Steps to show previews of, in order.
    """

    request: ImageRequest
    model: Model
    ignored: tuple[str, ...]
    preview_steps: tuple[int, ...] = ()

    @classmethod
    def of(cls, request: ImageRequest, model: Model) -> "PreparedRequest":
        """Fit a request to a model.

        Raises:
            GatewayError: the model makes no images of the shape.
        """
        capabilities = model.capabilities
        if capabilities is None:
            depends = request.shape or request.scheduler or request.preview_count
            sent = replace(request, width=_UNKNOWN_SIDE_PX) if depends else request
            return cls(sent, model, request.ignored_fields)
        dropped = _find_dropped(request, capabilities)
        sent = replace(request, **dict.fromkeys(dropped))  # type: ignore[arg-type]
        if sent.shape is not None:
            width, height = fit_shape(sent.shape, capabilities, sent.width, sent.height)
            sent = replace(sent, width=width, height=height, shape=None)
        if sent.scheduler is not None:
            sent = replace(sent, scheduler=find_scheduler(sent.scheduler, capabilities.schedulers))
        names = request.field_names.names
        ignored = (names.get(f"parameters.{name}", name) for name in dropped)
        steps = sent.num_inference_steps or capabilities.defaults.num_inference_steps or 1
        return cls(
            sent,
            model,
            (*ignored, *request.ignored_fields),
            spread_previews(request.preview_count, steps),
        )

    def options(self, timeout_s: float) -> GenerateOptions:
        """Return the options of the client's call."""
        request = self.request
        mime_type = request.output_mime_type
        return {
            "model": self.model.name,
            "guidance_scale": request.guidance_scale,
            "negative_prompt": request.negative_prompt,
            "num_inference_steps": request.num_inference_steps,
            "width": request.width,
            "height": request.height,
            "scheduler": request.scheduler,
            "seed": request.seed,
            "step_reuse": request.step_reuse,
            "adapters": request.adapters,
            "image_count": request.count,
            "output_mime_type": mime_type,
            "output_quality": request.output_quality,
            "preview_every": self.preview_steps[0] if self.preview_steps else None,
            "preview_mime_type": mime_type if mime_type in _PREVIEW_TYPES else None,
            "preview_max_side_px": self._preview_side_px if self.preview_steps else None,
            "use_cache": request.use_cache,
            "wait_for_model": request.wait_for_model,
            "timeout": timeout_s,
            "metadata": request.context.call_metadata,
        }

    def shows(self, step: int, shown_count: int) -> bool:
        """Return whether to show a step's preview, after `shown_count` others of its image."""
        return shown_count < len(self.preview_steps) and step >= self.preview_steps[shown_count]

    def result(self, images: Sequence[Image], completed: Completed) -> ImageResult:
        """Return the result of a completed generation."""
        is_cached = completed.cache is CacheStatus.HIT
        return ImageResult(
            images=tuple(images),
            model=self.model.name,
            compute_s=_find_compute_s(completed),
            compute_type="cache" if is_cached else self._device_type,
            ignored_fields=self.ignored,
        )

    @property
    def _preview_side_px(self) -> int:
        """Longest side of previews in pixels: that of the image, within the contract's limits."""
        capabilities = self.model.capabilities
        assert capabilities is not None
        defaults = capabilities.defaults
        width = self.request.width or defaults.width or 0
        height = self.request.height or defaults.height or 0
        return min(max(width, height, _MIN_PREVIEW_SIDE_PX), _MAX_PREVIEW_SIDE_PX)

    @property
    def _device_type(self) -> str:
        capabilities = self.model.capabilities
        return "cpu" if capabilities is not None and capabilities.device_type == "cpu" else "gpu"


def _find_compute_s(completed: Completed) -> float:
    """Return the device seconds that count for a generation; by phase from an older service."""
    if completed.usage is not None:
        return completed.usage.device_time_s
    timings = completed.timings
    return timings.text_encode_s + timings.denoise_s + timings.decode_s


def spread_previews(count: int, step_count: int) -> tuple[int, ...]:
    """Return the steps to show, multiples of the first one and spread over the image.

    The last step has no preview. An image of too few steps has fewer than `count`.
    """
    if count <= 0:
        return ()
    interval = max(1, step_count // (count + 1))
    steps = range(interval, step_count, interval)
    chosen = (steps[number * len(steps) // count] for number in range(count) if steps)
    return tuple(dict.fromkeys(chosen))


def _find_dropped(request: ImageRequest, capabilities: Capabilities) -> list[str]:
    """Return parameters that cannot have an effect, and that clients send to every model."""
    supported = capabilities.supported_parameters
    dropped = [
        name
        for name in ("guidance_scale", "negative_prompt")
        if name not in supported and getattr(request, name) is not None
    ]
    scale = request.guidance_scale
    if scale is None or "guidance_scale" in dropped:
        scale = capabilities.defaults.guidance_scale
    is_unguided = scale is not None and scale <= _GUIDANCE_OFF
    if is_unguided and request.negative_prompt and "negative_prompt" not in dropped:
        dropped.append("negative_prompt")
    return dropped
