"""OpenAI's stream: partial images, then each image, as server-sent events."""

import base64
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from safelight import Event, Image, Preview
from starlette.responses import Response

from safelight_gateway.dialects import hf_inference
from safelight_gateway.edge.call import Call
from safelight_gateway.edge.event_stream import EventStream
from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.request import ImageRequest

_PARTIAL = "image_generation.partial_image"
_COMPLETED = "image_generation.completed"
_ERROR = "error"
_NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""Clients require it; the gateway counts no tokens."""


async def stream_images(
    call: Call, request: ImageRequest, describe_error: Callable[[GatewayError], dict[str, Any]]
) -> Response:
    """Answer with the events of a generation, once the service has accepted it.

    Args:
        call: The call.
        request: The request.
        describe_error: Returns an error as the stream's clients read it.

    Raises:
        GatewayError: the service refused the request.
    """
    holder = await call.state.callers.attribute(call.context)
    run = call.state.generator.start(request)
    events = run.events()
    try:
        first = await anext(events)
    except BaseException:
        await events.aclose()
        raise
    headers = hf_inference.ignored_header(run.ignored_fields)

    async def pace() -> None:
        await call.state.event_pace.wait(holder)

    return EventStream(_render(first, events, describe_error, pace), headers)


async def _render(
    first: Event,
    events: AsyncGenerator[Event, None],
    describe_error: Callable[[GatewayError], dict[str, Any]],
    pace: Callable[[], Awaitable[None]],
) -> AsyncGenerator[str, None]:
    partial_count = 0
    async with aclosing(events):
        try:
            event: Event | None = first
            while event is not None:
                if frame := _render_event(event, partial_count):
                    partial_count += isinstance(event, Preview)
                    yield frame
                await pace()
                event = await anext(events, None)
        except GatewayError as error:
            yield _frame(_ERROR, {"error": describe_error(error)})


def _render_event(event: Event, partial_count: int) -> str | None:
    match event:
        case Preview():
            return _frame(_PARTIAL, {**_describe(event), "partial_image_index": partial_count})
        case Image():
            content = {**_describe(event), "usage": _NO_USAGE, "seed": event.seed}
            return _frame(_COMPLETED, content)
    return None


def _describe(image: Preview | Image) -> dict[str, Any]:
    """Return the fields of both events; the format and size are those of the bytes."""
    return {
        "b64_json": base64.b64encode(image.data).decode(),
        "background": "opaque",
        "created_at": int(time.time()),
        "output_format": image.mime_type.removeprefix("image/"),
        "quality": "auto",
        "size": f"{image.width}x{image.height}",
    }


def _frame(kind: str, content: dict[str, Any]) -> str:
    data = json.dumps({"type": kind, **content}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n"
