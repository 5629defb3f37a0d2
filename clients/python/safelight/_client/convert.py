"""Convert: this package's types to the contract's messages, and back."""

import re
import uuid
from collections.abc import Mapping

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration

from safelight.events import (
    Accepted,
    CacheStatus,
    Completed,
    GenerationOutcome,
    ModelLoading,
    Preview,
    Progress,
    Queued,
    Restarted,
    Timings,
    Usage,
)
from safelight.models import Capabilities, Limits, Model, ModelState, Scheduler
from safelight.options import DEFAULT_LINGER_S, GenerateOptions
from safelight.parameters import Parameters
from safelight.v1 import text_to_image_pb2 as pb

_MODEL_STATES = {
    pb.MODEL_STATE_NOT_LOADED: ModelState.NOT_LOADED,
    pb.MODEL_STATE_LOADING: ModelState.LOADING,
    pb.MODEL_STATE_READY: ModelState.READY,
    pb.MODEL_STATE_FAILED: ModelState.FAILED,
}

_CACHE_STATUSES = {
    pb.CACHE_STATUS_HIT: CacheStatus.HIT,
    pb.CACHE_STATUS_MISS: CacheStatus.MISS,
    pb.CACHE_STATUS_BYPASS: CacheStatus.BYPASS,
}
_OUTCOMES = {
    pb.GENERATION_STATE_COMPLETED: GenerationOutcome.COMPLETED,
    pb.GENERATION_STATE_FAILED: GenerationOutcome.FAILED,
    pb.GENERATION_STATE_CANCELLED: GenerationOutcome.CANCELLED,
}
_INTEGERS: Mapping[Descriptor, Mapping[str, str]] = {
    pb.TextToImageParameters.DESCRIPTOR: {
        name: name for name in ("num_inference_steps", "width", "height", "seed")
    },
    pb.GenerateRequest.DESCRIPTOR: {"image_count": "image_count"},
    pb.OutputOptions.DESCRIPTOR: {"output_quality": "quality"},
    pb.PreviewOptions.DESCRIPTOR: {
        "preview_every": "interval_steps",
        "preview_max_side_px": "max_side_px",
    },
}
"""Options that are integers, and their fields in each message."""

_LONGEST_LINGER_S = 3600


def request_to_proto(prompt: str, options: GenerateOptions) -> pb.GenerateRequest:
    """Build the request of a generation.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: a number or a text does not fit the contract's type. The service checks
            all other rules.
    """
    for option, value in {"prompt": prompt, **options}.items():
        _check_text(option, value)
    for descriptor, names in _INTEGERS.items():
        for option, field in names.items():
            _check_integer(option, options.get(option), descriptor.fields_by_name[field])
    linger_s = options.get("linger", DEFAULT_LINGER_S)
    if not 0 <= linger_s <= _LONGEST_LINGER_S:
        raise ValueError(f"linger must be from 0 to {_LONGEST_LINGER_S} seconds, not {linger_s}")
    linger = Duration()
    linger.FromNanoseconds(round(linger_s * 1e9))
    return pb.GenerateRequest(
        inputs=prompt,
        parameters=pb.TextToImageParameters(
            guidance_scale=options.get("guidance_scale"),
            negative_prompt=options.get("negative_prompt"),
            num_inference_steps=options.get("num_inference_steps"),
            width=options.get("width"),
            height=options.get("height"),
            scheduler=options.get("scheduler"),
            seed=options.get("seed"),
            step_reuse=options.get("step_reuse"),
        ),
        model=options.get("model") or "",
        generation_id=options.get("generation_id") or (uuid.uuid4().hex if linger_s > 0 else ""),
        image_count=options.get("image_count"),
        output=pb.OutputOptions(
            mime_type=options.get("output_mime_type") or "",
            quality=options.get("output_quality"),
        ),
        preview=pb.PreviewOptions(
            interval_steps=options.get("preview_every") or 0,
            mime_type=options.get("preview_mime_type") or "",
            max_side_px=options.get("preview_max_side_px"),
        ),
        linger=linger if linger_s > 0 else None,
    )


def _check_integer(option: str, value: object, field: FieldDescriptor) -> None:
    """Refuse an integer that its field cannot hold, by the option's name."""
    limit = 2**63 if field.type == FieldDescriptor.TYPE_INT64 else 2**31
    if isinstance(value, int) and not -limit <= value < limit:
        raise ValueError(f"{option} must be from 0 to {limit - 1}, not {value}")


def _check_text(option: str, value: object) -> None:
    """Refuse a text that its field cannot hold, by the option's name."""
    if isinstance(value, str) and re.search(r"[\ud800-\udfff]", value):
        raise ValueError(f"{option} must be UTF-8")


def outcome_from_proto(state: pb.GenerationState.ValueType) -> GenerationOutcome:
    """Convert the outcome of a generation."""
    return _OUTCOMES.get(state, GenerationOutcome.UNKNOWN)


def accepted_from_proto(message: pb.GenerationAccepted) -> Accepted:
    """Convert the event."""
    output = message.output
    return Accepted(
        generation_id=message.generation_id,
        model=message.model,
        model_revision=message.model_revision,
        parameters=_parameters_from_proto(message.parameters),
        image_count=message.image_count,
        output_mime_type=output.mime_type,
        output_quality=output.quality if output.HasField("quality") else None,
    )


def queued_from_proto(message: pb.GenerationQueued) -> Queued:
    """Convert the event."""
    is_known = message.HasField("estimated_wait")
    return Queued(
        position=message.position,
        estimated_wait_s=_seconds(message.estimated_wait) if is_known else None,
    )


def model_loading_from_proto(message: pb.ModelLoading) -> ModelLoading:
    """Convert the event."""
    return ModelLoading(
        model=message.model,
        fraction=message.fraction if message.HasField("fraction") else None,
        elapsed_s=_seconds(message.elapsed),
    )


def restarted_from_proto(message: pb.GenerationRestarted) -> Restarted:
    """Convert the event."""
    return Restarted(
        restart_count=message.restart_count, recovered_step_count=message.recovered_step_count
    )


def progress_from_proto(message: pb.StepProgress) -> Progress:
    """Convert the event."""
    return Progress(
        step=message.step,
        step_count=message.step_count,
        image_index=message.image_index,
        elapsed_s=_seconds(message.elapsed),
        estimated_remaining_s=_seconds(message.estimated_remaining),
    )


def preview_from_proto(message: pb.ImagePreview) -> Preview:
    """Convert the event."""
    return Preview(
        image_index=message.image_index,
        step=message.step,
        mime_type=message.mime_type,
        width=message.width,
        height=message.height,
        data=message.data,
    )


def completed_from_proto(message: pb.GenerationCompleted) -> Completed:
    """Convert the event."""
    timings = message.timings
    return Completed(
        timings=Timings(
            model_load_s=_seconds(timings.model_load),
            queue_s=_seconds(timings.queue),
            text_encode_s=_seconds(timings.text_encode),
            denoise_s=_seconds(timings.denoise),
            decode_s=_seconds(timings.decode),
            image_encode_s=_seconds(timings.image_encode),
            total_s=_seconds(timings.total),
        ),
        step_count=message.step_count,
        batch_widths={width.image_count: width.forward_count for width in message.batch_widths},
        cache=_CACHE_STATUSES.get(message.cache, CacheStatus.UNKNOWN),
        usage=_usage_from_proto(message.usage) if message.HasField("usage") else None,
        reused_forward_count=message.reused_forward_count,
        restart_count=message.restart_count,
    )


def _usage_from_proto(message: pb.GenerationUsage) -> Usage:
    return Usage(
        device_time_s=_seconds(message.device_time),
        image_count=message.image_count,
        pixel_count=message.pixel_count,
        step_count=message.step_count,
    )


def model_from_proto(message: pb.Model) -> Model:
    """Convert a model."""
    is_known = message.HasField("capabilities")
    return Model(
        name=message.name,
        revision=message.revision,
        is_default=message.is_default,
        state=_MODEL_STATES.get(message.state, ModelState.UNKNOWN),
        capabilities=_capabilities_from_proto(message.capabilities) if is_known else None,
    )


def _capabilities_from_proto(message: pb.ModelCapabilities) -> Capabilities:
    return Capabilities(
        pipeline_class=message.pipeline_class,
        supported_parameters=tuple(message.supported_parameters),
        defaults=_parameters_from_proto(message.defaults),
        schedulers=tuple(_scheduler_from_proto(scheduler) for scheduler in message.schedulers),
        limits=_limits_from_proto(message.limits),
        has_previews=message.has_previews,
        device_type=message.device_type,
    )


def _scheduler_from_proto(message: pb.Scheduler) -> Scheduler:
    is_limited = message.HasField("max_step_count")
    return Scheduler(
        name=message.name,
        aliases=tuple(message.aliases),
        max_step_count=message.max_step_count if is_limited else None,
    )


def _limits_from_proto(message: pb.ModelLimits) -> Limits:
    is_limited = message.HasField("max_prompt_token_count")
    return Limits(
        min_side_px=message.min_side_px,
        max_side_px=message.max_side_px,
        size_multiple_px=message.size_multiple_px,
        max_pixel_count=message.max_pixel_count,
        max_step_count=message.max_step_count,
        max_guidance_scale=message.max_guidance_scale,
        max_image_count=message.max_image_count,
        max_prompt_token_count=message.max_prompt_token_count if is_limited else None,
        max_prompt_character_count=message.max_prompt_character_count,
        max_step_reuse=message.max_step_reuse,
    )


def _parameters_from_proto(message: pb.TextToImageParameters) -> Parameters:
    # The names are the same on both sides; ListFields gives those that are set.
    return Parameters(**{field.name: value for field, value in message.ListFields()})


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
