"""A real gRPC server that plays a script, for what the real service never does."""

import hashlib
import io
import threading
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import Self

import grpc
import PIL.Image
import PIL.PngImagePlugin
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1.health import HealthServicer
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_status import rpc_status
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1.text_to_image_pb2_grpc import (
    TextToImageServiceServicer,
    add_TextToImageServiceServicer_to_server,
)

HOLD = object()
"""A step of a script that lasts until the call ends."""

Script = Sequence[pb.GenerateResponse | Status | object]


def status(code: grpc.StatusCode, message: str, *details: Message) -> Status:
    """Return a step of a script that ends the call with this status."""
    number: int = code.value[0]
    packed = []
    for detail in details:
        packed.append(Any())
        packed[-1].Pack(detail)
    return Status(code=number, message=message, details=packed)


def failure(code: grpc.StatusCode, reason: str, message: str = "no") -> Status:
    """Return a step of a script that ends the call as the service does, with its own reason."""
    return status(code, message, ErrorInfo(reason=reason, domain="safelight"))


def png(color: str = "red", side: int = 16) -> bytes:
    """Return a PNG image that carries a text."""
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text("prompt", "a red circle")
    file = io.BytesIO()
    PIL.Image.new("RGB", (side, side), color).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def event(**kind: typing.Any) -> pb.GenerateResponse:
    """Return a step of a script that sends this event."""
    return pb.GenerateResponse(event=pb.GenerationEvent(**kind))


def header(data: bytes, index: int = 0, sha256: str | None = None) -> pb.GenerateResponse:
    """Return the announcement of an image."""
    return event(
        image=pb.ImageHeader(
            image_index=index,
            mime_type="image/png",
            width=16,
            height=16,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest() if sha256 is None else sha256,
            seed=7 + index,
        )
    )


def chunk(data: bytes, offset: int = 0, index: int = 0) -> pb.GenerateResponse:
    """Return a piece of an image."""
    return event(chunk=pb.ImageChunk(image_index=index, offset_bytes=offset, data=data))


def image(index: int = 0, color: str = "red") -> Iterator[pb.GenerateResponse]:
    """Yield an image in two chunks."""
    data = png(color)
    half = len(data) // 2
    yield header(data, index)
    yield chunk(data[:half], 0, index)
    yield chunk(data[half:], half, index)


def accepted(image_count: int = 1, step_count: int = 4) -> pb.GenerateResponse:
    """Return the event of this name."""
    return event(
        accepted=pb.GenerationAccepted(
            generation_id="generation-1",
            model="shapes",
            parameters=pb.TextToImageParameters(
                seed=7, guidance_scale=0.0, num_inference_steps=step_count
            ),
            image_count=image_count,
            output=pb.OutputOptions(mime_type="image/png"),
        )
    )


def progress(step: int, step_count: int = 4, image_index: int = 0) -> pb.GenerateResponse:
    """Return the event of this name, half a second after the one before."""
    message = pb.StepProgress(step=step, step_count=step_count, image_index=image_index)
    message.elapsed.FromMilliseconds(500 * step)
    message.estimated_remaining.FromMilliseconds(500 * (step_count - step))
    return event(progress=message)


def restarted(restart_count: int, recovered_step_count: int = 0) -> pb.GenerateResponse:
    """Return the event of this name."""
    return event(
        restarted=pb.GenerationRestarted(
            restart_count=restart_count, recovered_step_count=recovered_step_count
        )
    )


def preview(step: int) -> pb.GenerateResponse:
    """Return the event of this name."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (16, 16), "red").save(file, "JPEG")
    return event(
        preview=pb.ImagePreview(
            step=step, mime_type="image/jpeg", width=16, height=16, data=file.getvalue()
        )
    )


def queued(position: int) -> pb.GenerateResponse:
    """Return the event of this name, with an estimate for the first in the queue."""
    message = pb.GenerationQueued(position=position)
    if position == 1:
        message.estimated_wait.FromMilliseconds(1500)
    return event(queued=message)


def model_loading(fraction: float | None = None) -> pb.GenerateResponse:
    """Return the event of this name."""
    message = pb.ModelLoading(model="shapes", fraction=fraction)
    message.elapsed.FromMilliseconds(2500)
    return event(model_loading=message)


def completed(step_count: int = 4) -> pb.GenerateResponse:
    """Return the event of this name."""
    message = pb.GenerationCompleted(
        step_count=step_count,
        batch_widths=[pb.BatchWidth(image_count=2, forward_count=step_count)],
        cache=pb.CACHE_STATUS_MISS,
        usage=pb.GenerationUsage(image_count=1, pixel_count=4096, step_count=step_count),
    )
    message.timings.total.FromMilliseconds(2000)
    message.usage.device_time.FromMilliseconds(1500)
    return event(completed=message)


def whole_generation() -> Iterator[pb.GenerateResponse]:
    """Yield all events of a generation that goes well."""
    yield model_loading()
    yield accepted()
    yield queued(2)
    yield queued(1)
    for step in range(1, 5):
        yield progress(step)
        if step < 4:
            yield preview(step)
    yield from image()
    yield completed()


class ScriptedService(TextToImageServiceServicer):
    """Plays `script` to each call and notes what it was asked.

    Attributes:
        script: The responses of Generate and the statuses that end any call.
        models: What the other methods answer, if the script has no status.
        requests: The requests of Generate so far.
        on_request: Called with each request of Generate.
        cancelled_ids: The ids that CancelGeneration was called with.
        metadata: The metadata of the last call.
        time_remaining: The seconds that the last call was given, if limited.
        pushback_ms: `grpc-retry-pushback-ms` of failures: the delay, or below 0 for no retry.
        cancelled: Set when a call ended before its script.
        cancelled_by_id: Set when CancelGeneration was called.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.script: Script = ()
        self._later: list[Script] = []
        self.models: Sequence[pb.Model] = ()
        self.requests: list[pb.GenerateRequest] = []
        self.on_request: Callable[[pb.GenerateRequest], object] = lambda request: None
        self.cancelled_ids: list[str] = []
        self.metadata: dict[str, str | bytes] = {}
        self.time_remaining: float | None = None
        self.pushback_ms: int | None = None
        self.cancelled = threading.Event()
        self.cancelled_by_id = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        add_TextToImageServiceServicer_to_server(self, self._server)
        health = HealthServicer()
        health.set("safelight.v1.TextToImageService", HealthCheckResponse.SERVING)
        add_HealthServicer_to_server(health, self._server)
        if credentials is None:
            port = self._server.add_insecure_port("localhost:0")
        else:
            port = self._server.add_secure_port("localhost:0", credentials)
        self.target = f"localhost:{port}"

    def play(self, *steps: Iterable[pb.GenerateResponse] | pb.GenerateResponse | object) -> None:
        """Set the script; iterators are played in full."""
        self.script = [
            each for step in steps for each in (step if isinstance(step, Iterator) else (step,))
        ]

    def play_in_turn(self, *scripts: Script) -> None:
        """Set a script for each of the next calls."""
        self._later = [*scripts]

    def Generate(
        self, request: pb.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateResponse]:
        """Play the script."""
        self.requests.append(request)
        self.on_request(request)
        self._note(context)
        has_ended = threading.Event()
        is_played = False

        def end() -> None:
            has_ended.set()
            if not is_played:
                self.cancelled.set()

        context.add_callback(end)
        if self._later:
            self.script = self._later.pop(0)
        for step in self.script:
            if isinstance(step, pb.GenerateResponse):
                yield step
            elif step is HOLD:
                has_ended.wait()
            else:
                is_played = True
                self._abort(context, step)
        is_played = True

    def WatchGeneration(
        self, request: pb.WatchGenerationRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchGenerationResponse]:
        """Play the events of the script."""
        self._note(context)
        self._play_statuses(context)
        for step in self.script:
            if isinstance(step, pb.GenerateResponse):
                yield pb.WatchGenerationResponse(event=step.event)

    def CancelGeneration(
        self, request: pb.CancelGenerationRequest, context: grpc.ServicerContext
    ) -> pb.CancelGenerationResponse:
        """Record the generation to cancel."""
        self._note(context)
        self.cancelled_ids.append(request.generation_id)
        self.cancelled_by_id.set()
        return pb.CancelGenerationResponse(state=pb.GENERATION_STATE_CANCELLED)

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """Answer with the models."""
        self._note(context)
        self._play_statuses(context)
        return pb.ListModelsResponse(models=self.models)

    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        """Answer with the model of this name, or the first."""
        self._note(context)
        self._play_statuses(context)
        return pb.GetModelResponse(
            model=next(model for model in self.models if request.model in ("", model.name))
        )

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all calls and close the port."""
        self._server.stop(grace=None).wait()

    def _note(self, context: grpc.ServicerContext) -> None:
        self.metadata = dict(context.invocation_metadata())
        self.time_remaining = context.time_remaining()

    def _play_statuses(self, context: grpc.ServicerContext) -> None:
        for step in self.script:
            self._abort(context, step)

    def _abort(self, context: grpc.ServicerContext, step: object) -> None:
        if isinstance(step, Status):
            rich: typing.Any = rpc_status.to_status(step)
            metadata = [*rich.trailing_metadata]
            if self.pushback_ms is not None:
                metadata.append(("grpc-retry-pushback-ms", str(self.pushback_ms)))
            context.abort_with_status(rich._replace(trailing_metadata=tuple(metadata)))
