"""Convert: the contract's messages to the core's dataclasses, and back.

A pure mapping, field by field; the rules are checked in the core.
"""

import time
from collections.abc import Iterator
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from safelight.v1 import text_to_image_pb2 as pb

from safelight_service.core import events, model
from safelight_service.core import request as core
from safelight_service.core.tenant import Tenant
from safelight_service.generations.state import State

MAX_CHUNK_BYTES = 1024 * 1024

_CACHE_STATUSES = {
    events.CacheUse.HIT: pb.CACHE_STATUS_HIT,
    events.CacheUse.MISS: pb.CACHE_STATUS_MISS,
    events.CacheUse.BYPASS: pb.CACHE_STATUS_BYPASS,
}
_GENERATION_STATES = {
    State.COMPLETED: pb.GENERATION_STATE_COMPLETED,
    State.FAILED: pb.GENERATION_STATE_FAILED,
    State.CANCELLED: pb.GENERATION_STATE_CANCELLED,
}
_STATES = {
    model.ModelState.NOT_LOADED: pb.MODEL_STATE_NOT_LOADED,
    model.ModelState.LOADING: pb.MODEL_STATE_LOADING,
    model.ModelState.READY: pb.MODEL_STATE_READY,
    model.ModelState.FAILED: pb.MODEL_STATE_FAILED,
}


def from_generate_request(
    request: pb.GenerateRequest,
    *,
    waits_for_model: bool,
    uses_cache: bool,
    time_left_s: float | None,
    tenant: Tenant,
) -> core.GenerationRequest:
    """Convert a request; optional fields that are absent become None."""
    output, preview = request.output, request.preview
    return core.GenerationRequest(
        inputs=request.inputs,
        parameters=core.Parameters(**_present_fields(request.parameters)),
        model=request.model,
        generation_id=request.generation_id,
        image_count=request.image_count if request.HasField("image_count") else None,
        output=core.OutputOptions(
            mime_type=output.mime_type,
            quality=output.quality if output.HasField("quality") else None,
        ),
        preview=core.PreviewOptions(
            interval_steps=preview.interval_steps,
            mime_type=preview.mime_type,
            max_side_px=preview.max_side_px if preview.HasField("max_side_px") else None,
        ),
        linger_s=request.linger.ToNanoseconds() / 1e9,
        waits_for_model=waits_for_model,
        uses_cache=uses_cache,
        deadline_at=None if time_left_s is None else time.monotonic() + time_left_s,
        tenant=tenant,
    )


def to_generation_events(event: events.Event) -> Iterator[pb.GenerationEvent]:
    """Convert an event of the core; an image becomes its header and its chunks."""
    match event:
        case events.Accepted():
            yield pb.GenerationEvent(accepted=_accepted(event))
        case events.Queued():
            yield pb.GenerationEvent(
                queued=pb.GenerationQueued(
                    position=event.position, estimated_wait=_duration(event.estimated_wait_s)
                )
            )
        case events.ModelLoading():
            yield pb.GenerationEvent(
                model_loading=pb.ModelLoading(
                    model=event.model, fraction=event.fraction, elapsed=_duration(event.elapsed_s)
                )
            )
        case events.Restarted():
            yield pb.GenerationEvent(
                restarted=pb.GenerationRestarted(
                    restart_count=event.restart_count,
                    recovered_step_count=event.recovered_step_count,
                )
            )
        case events.Progress():
            yield pb.GenerationEvent(
                progress=pb.StepProgress(
                    step=event.step,
                    step_count=event.step_count,
                    image_index=event.image_index,
                    elapsed=_duration(event.elapsed_s),
                    estimated_remaining=_duration(event.estimated_remaining_s),
                )
            )
        case events.Preview():
            yield pb.GenerationEvent(
                preview=pb.ImagePreview(
                    image_index=event.image_index,
                    step=event.step,
                    mime_type=event.mime_type,
                    width=event.width,
                    height=event.height,
                    data=event.data,
                )
            )
        case events.Image():
            yield from _image(event)
        case events.Completed():
            yield pb.GenerationEvent(
                completed=pb.GenerationCompleted(
                    timings=_timings(event.timings),
                    step_count=event.step_count,
                    batch_widths=[
                        pb.BatchWidth(image_count=width, forward_count=count)
                        for width, count in event.widths.items()
                    ],
                    cache=_CACHE_STATUSES[event.cache],
                    usage=_usage(event.usage),
                    reused_forward_count=event.reused_forward_count,
                    restart_count=event.restart_count,
                )
            )


def to_cancel_response(state: State) -> pb.CancelGenerationResponse:
    """Convert the state that a generation has ended in."""
    return pb.CancelGenerationResponse(state=_GENERATION_STATES[state])


def to_model(info: model.ModelInfo) -> pb.Model:
    """Convert a model; its capabilities stay unset until it has been loaded."""
    return pb.Model(
        name=info.name,
        revision=info.revision,
        is_default=info.is_default,
        state=_STATES[info.state],
        capabilities=_capabilities(info.capabilities) if info.capabilities else None,
    )


def _present_fields(message: Message) -> dict[str, Any]:
    return {field.name: value for field, value in message.ListFields()}


def _accepted(event: events.Accepted) -> pb.GenerationAccepted:
    request = event.request
    parameters = request.parameters
    return pb.GenerationAccepted(
        generation_id=event.generation_id,
        model=event.model,
        model_revision=event.model_revision,
        parameters=pb.TextToImageParameters(
            guidance_scale=parameters.guidance_scale,
            negative_prompt=parameters.negative_prompt,
            num_inference_steps=parameters.num_inference_steps,
            width=parameters.width,
            height=parameters.height,
            scheduler=parameters.scheduler,
            seed=parameters.seed,
            step_reuse=parameters.step_reuse,
        ),
        image_count=request.image_count,
        output=pb.OutputOptions(mime_type=request.output.mime_type, quality=request.output.quality),
    )


def _image(image: events.Image) -> Iterator[pb.GenerationEvent]:
    yield pb.GenerationEvent(
        image=pb.ImageHeader(
            image_index=image.index,
            mime_type=image.mime_type,
            width=image.width,
            height=image.height,
            size_bytes=len(image.data),
            sha256=image.sha256,
            seed=image.seed,
            is_flagged=image.is_flagged,
        )
    )
    for offset in range(0, len(image.data), MAX_CHUNK_BYTES):
        yield pb.GenerationEvent(
            chunk=pb.ImageChunk(
                image_index=image.index,
                offset_bytes=offset,
                data=image.data[offset : offset + MAX_CHUNK_BYTES],
            )
        )


def _timings(timings: events.Timings) -> pb.GenerationTimings:
    return pb.GenerationTimings(
        model_load=_duration(timings.model_load_s),
        queue=_duration(timings.queue_s),
        text_encode=_duration(timings.text_encode_s),
        denoise=_duration(timings.denoise_s),
        decode=_duration(timings.decode_s),
        image_encode=_duration(timings.image_encode_s),
        total=_duration(timings.total_s),
    )


def _usage(usage: events.Usage) -> pb.GenerationUsage:
    return pb.GenerationUsage(
        device_time=_duration(usage.device_time_s),
        image_count=usage.image_count,
        pixel_count=usage.pixel_count,
        step_count=usage.step_count,
    )


def _capabilities(capabilities: model.Capabilities) -> pb.ModelCapabilities:
    defaults, limits = capabilities.defaults, capabilities.limits
    return pb.ModelCapabilities(
        pipeline_class=capabilities.pipeline_class,
        supported_parameters=capabilities.supported_parameters,
        defaults=pb.TextToImageParameters(
            guidance_scale=defaults.guidance_scale,
            num_inference_steps=defaults.num_inference_steps,
            width=defaults.width,
            height=defaults.height,
            scheduler=defaults.scheduler,
            step_reuse=defaults.step_reuse,
        ),
        schedulers=[
            pb.Scheduler(
                name=scheduler.name,
                aliases=scheduler.aliases,
                max_step_count=scheduler.max_step_count,
            )
            for scheduler in capabilities.schedulers
        ],
        limits=pb.ModelLimits(
            min_side_px=limits.min_side_px,
            max_side_px=limits.max_side_px,
            size_multiple_px=limits.size_multiple_px,
            max_pixel_count=limits.max_pixel_count,
            max_step_count=limits.max_step_count,
            max_guidance_scale=limits.max_guidance_scale,
            max_image_count=limits.max_image_count,
            max_prompt_token_count=limits.max_prompt_token_count,
            max_prompt_character_count=limits.max_prompt_character_count,
            max_step_reuse=limits.max_step_reuse,
        ),
        has_previews=capabilities.has_previews,
        device_type=capabilities.device_type,
    )


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    whole_s, nanoseconds = divmod(round(seconds * 1e9), 10**9)
    return Duration(seconds=whole_s, nanos=nanoseconds)
