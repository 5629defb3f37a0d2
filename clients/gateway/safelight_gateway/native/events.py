"""Events: a generation's stream from the service, as server-sent events.

An event's name is that of the contract's `oneof`, and its data the message in protobuf JSON
with the contract's names. Two things differ: an image comes whole, as `data` or as `url`,
instead of in chunks; and `failed` is the last event of a generation that did not complete, or
whose stream breaks the contract.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeAlias

import grpc.aio
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from safelight import Accepted, Completed, EventAssembler, Image, SafelightError
from safelight.errors import service_errors
from safelight.v1 import text_to_image_pb2 as pb
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from safelight_gateway.errors import GatewayError, from_service

END_ID = "end"
"""Id of the last event; a client that reconnects with it has missed nothing."""

_SIGN_OF_LIFE_S = 10.0
_SIGN_OF_LIFE = ": the service is at work\n\n"

RpcCall: TypeAlias = (
    "grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse] | "
    "grpc.aio.UnaryStreamCall[pb.WatchGenerationRequest, pb.WatchGenerationResponse]"
)


def to_json(message: Message) -> dict[str, Any]:
    """Return a message in protobuf JSON, names as in the contract, zeros included."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def to_problem(error: GatewayError) -> dict[str, Any]:
    """Return an error as problem details (RFC 9457), with the service's details."""
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.message,
        "reason": error.reason,
    }
    if error.violations:
        problem["violations"] = [
            {"field": violation.field, "description": violation.description}
            for violation in error.violations
        ]
    if error.retry_after_s is not None:
        problem["retry_after_s"] = error.retry_after_s
    return problem


class EventStreamResponse(StreamingResponse):
    """Events of a call; a disconnect cancels the call."""

    media_type = "text/event-stream"

    def __init__(
        self,
        call: RpcCall,
        first: pb.GenerationEvent | None,
        *,
        told_count: int,
        link: Callable[[Image], str] | None,
    ) -> None:
        """Make a response of a call whose first event has been read.

        Args:
            call: The call to the service.
            first: The first result of `read_event`.
            told_count: Number of images that the caller already has; these are not sent again.
            link: Keeps an image and returns its URL; None: images are sent as `data`.
        """
        self._call = call
        self._first = first
        self._told_count = told_count
        self._link = link
        self._frames = self._read_frames()
        # nginx would otherwise hold events back until its buffer is full
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(self._frames, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client disconnects."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._call.cancel()
            await self._frames.aclose()

    async def _read_frames(self) -> AsyncGenerator[str]:
        reading = asyncio.ensure_future(self._read_first())
        assembler, header = EventAssembler(), pb.ImageHeader()
        try:
            while True:
                while not (await asyncio.wait({reading}, timeout=_SIGN_OF_LIFE_S))[0]:
                    yield _SIGN_OF_LIFE
                message = reading.result()
                if message is None:
                    assembler.finish()
                    return
                reading = asyncio.ensure_future(read_event(self._call))
                if message.HasField("image"):
                    header = message.image
                event, kind = assembler.feed(message), message.WhichOneof("kind")
                match event:
                    case Accepted():
                        yield _frame("accepted", to_json(message.accepted), str(self._told_count))
                    case Image():
                        if event.image_index >= self._told_count:
                            yield self._image_frame(header, event)
                    case Completed():
                        yield _frame("completed", to_json(message.completed), END_ID)
                    case _ if event is not None and kind is not None:
                        yield _frame(kind, to_json(getattr(message, kind)))
        except SafelightError as error:
            yield _frame("failed", to_problem(from_service(error)), END_ID)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read_first(self) -> pb.GenerationEvent | None:
        return self._first

    def _image_frame(self, header: pb.ImageHeader, image: Image) -> str:
        content = to_json(header)
        if self._link is None:
            content["data"] = base64.b64encode(image.data).decode()
        else:
            content["url"] = self._link(image)
        return _frame("image", content, str(image.image_index + 1))


async def read_event(call: RpcCall) -> pb.GenerationEvent | None:
    """Return the next message of a call; None when it has ended with the status OK.

    Raises:
        ServiceError: it has ended otherwise.
    """
    with service_errors():
        response: Any = await call.read()
    if response is grpc.aio.EOF:
        return None
    event: pb.GenerationEvent = response.event
    return event


def _frame(kind: str, data: dict[str, Any], event_id: str | None = None) -> str:
    id_line = "" if event_id is None else f"id: {event_id}\n"
    return f"event: {kind}\n{id_line}data: {json.dumps(data, separators=(',', ':'))}\n\n"
