"""Events: a generation's stream from the service, as server-sent events.

An event's name is that of the contract's `oneof`, and its data the message in protobuf JSON
with the contract's names. There are two differences: an image comes whole, as `data` or as `url`,
instead of in chunks; and `failed` is the last event of a generation that did not complete, or
whose stream breaks the contract.
"""

import base64
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from safelight import Accepted, AsyncGeneration, Completed, Event, Image, SafelightError
from starlette.types import Receive, Scope, Send

from safelight_gateway.edge.event_stream import EventStream
from safelight_gateway.errors import GatewayError, from_service

END_ID = "end"
"""Id of the last event; a client that reconnects with it has missed nothing."""


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


class GenerationStream(EventStream):
    """Events of a generation; a disconnect leaves its block."""

    def __init__(
        self,
        generation: AsyncGeneration,
        first: Event | None,
        closing: AsyncExitStack,
        *,
        known_count: int,
        link: Callable[[Image], str] | None,
        pace: Callable[[], Awaitable[object]],
    ) -> None:
        """Make a response of a generation whose first event has been read.

        Args:
            generation: The generation, within its block.
            first: Its first event; None if it had none.
            closing: Leaves that block.
            known_count: Number of images that the caller already has; they are not sent again.
            link: Keeps an image and returns its URL; None to send images as `data`.
            pace: Waits for the caller's turn to read another event.
        """
        self._generation = generation
        self._first = first
        self._closing = closing
        self._known_count = known_count
        self._link = link
        self._pace = pace
        super().__init__(self._read_frames(), {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client disconnects."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._closing.aclose()

    async def _read_frames(self) -> AsyncGenerator[str, None]:
        event = self._first
        try:
            while event is not None:
                if frame := self._frame_of(event):
                    yield frame
                await self._pace()
                event = await read_event(self._generation)
        except SafelightError as error:
            yield _frame("failed", to_problem(from_service(error)), END_ID)

    def _frame_of(self, event: Event) -> str | None:
        message = self._generation.message
        kind = message.WhichOneof("kind") if message else None
        if message is None or kind is None:
            return None
        content = to_json(getattr(message, kind))
        match event:
            case Accepted():
                return _frame(kind, content, str(self._known_count))
            case Image() if event.image_index < self._known_count:
                return None
            case Image():
                return self._image_frame(content, event)
            case Completed():
                return _frame(kind, content, END_ID)
            case _:
                return _frame(kind, content)

    def _image_frame(self, content: dict[str, Any], image: Image) -> str:
        if self._link is None:
            content["data"] = base64.b64encode(image.data).decode()
        else:
            content["url"] = self._link(image)
        return _frame("image", content, str(image.image_index + 1))


async def read_event(generation: AsyncGeneration) -> Event | None:
    """Return the next event of a generation; None after the last.

    Raises:
        SafelightError: the generation has failed, or its stream breaks the contract.
    """
    return await anext(generation, None)


def _frame(kind: str, data: dict[str, Any], event_id: str | None = None) -> str:
    id_line = "" if event_id is None else f"id: {event_id}\n"
    return f"event: {kind}\n{id_line}data: {json.dumps(data, separators=(',', ':'))}\n\n"
