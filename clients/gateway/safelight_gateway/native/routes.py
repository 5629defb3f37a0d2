"""The native routes: the gRPC contract as JSON over HTTP.

Requests and events are the contract's messages in protobuf JSON; generations stream as
server-sent events (`events.py`), and errors are problem details (RFC 9457).
"""

import re
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safelight import Image, SafelightError
from safelight.errors import service_errors
from safelight.options import CallOptions
from safelight.v1 import text_to_image_pb2 as pb
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from safelight_gateway.dialects.openai_models import list_models
from safelight_gateway.edge.call import Call
from safelight_gateway.edge.endpoint import endpoint
from safelight_gateway.edge.links import link_image
from safelight_gateway.errors import GatewayError, bad_request, from_service, invalid_field
from safelight_gateway.native.events import (
    END_ID,
    GenerationStream,
    read_event,
    to_json,
    to_problem,
)
from safelight_gateway.native.openapi import describe_api
from safelight_gateway.state import AppState

_SERVICE = pb.DESCRIPTOR.services_by_name["TextToImageService"].full_name
_DATA, _URL = "data", "url"
_HEALTH_TIMEOUT_S = 3.0
_LINGER_S = 10
"""Time to resume the stream of a generation that the caller does not name."""

_UNKNOWN_FIELD = re.compile(r'no field named "([^"]*)" at "[^".]*\.?([^"]*)"')
_PLACE = re.compile(r" at GenerateRequest\.(\w+(?:\.\w+)*)\.?$")
_BAD_FIELD = re.compile(r"Failed to parse (\w+) field: ")
_DURATION = "google.protobuf.Duration"
_TYPE_NAMES = {
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_INT32: "an integer within 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "an integer within 64 bits",
    FieldDescriptor.CPPTYPE_MESSAGE: "an object",
    FieldDescriptor.CPPTYPE_STRING: "a string",
}


def routes(state: AppState) -> list[Route]:
    """Return the routes of the contract, of its description and of health."""

    async def readiness(request: Request) -> Response:
        return await _report_readiness(state)

    document = JSONResponse(describe_api()).body

    async def description(request: Request) -> Response:
        return Response(document, media_type="application/json")

    def route(path: str, handler: Any, method: str) -> Route:
        return Route(path, endpoint(state, handler, render_error), methods=[method])

    return [
        route("/v1/generate", _generate, "POST"),
        route("/v1/generations/{generation_id}", _watch, "GET"),
        route("/v1/generations/{generation_id}", _cancel, "DELETE"),
        route("/v1/models", _list_models, "GET"),
        Route("/openapi.json", description, methods=["GET"]),
        Route("/healthz", _report_health, methods=["GET"]),
        Route("/readyz", readiness, methods=["GET"]),
    ]


def render_error(error: GatewayError) -> Response:
    """Render an error as problem details."""
    return JSONResponse(to_problem(error), error.status, media_type="application/problem+json")


def parse_request(body: dict[str, Any]) -> pb.GenerateRequest:
    """Parse a body of protobuf JSON as a request.

    Raises:
        GatewayError: a field does not exist, or its value has another type.
    """
    try:
        return ParseDict(body, pb.GenerateRequest())
    except ParseError as error:
        message = str(error)
    if unknown := _UNKNOWN_FIELD.search(message):
        parts = (part for part in (unknown[2], unknown[1]) if part)
        raise invalid_field(".".join(parts), "is no field of the contract")
    place = _PLACE.search(message)
    path = place[1].split(".") if place else _BAD_FIELD.findall(message)
    if not path:
        raise bad_request("the body must be a GenerateRequest in JSON")
    raise invalid_field(*_describe_field(path))


def _describe_field(path: Sequence[str]) -> tuple[str, str]:
    """Return a field's path in the contract's names, and its required type."""
    message: Descriptor | None = pb.GenerateRequest.DESCRIPTOR
    names: list[str] = []
    description = ""
    for name in path:
        if message is None:
            break
        field = message.fields_by_name.get(name) or message.fields_by_camelcase_name.get(name)
        if field is None:  # an item of a list, where an object should be
            break
        names.append(field.name)
        description = f"must be {_TYPE_NAMES[field.cpp_type]}"
        message = field.message_type
    if message is not None and message.full_name == _DURATION:
        description = "must be a duration in seconds, such as 1.5s"
    return ".".join(names), description


async def _generate(call: Call) -> Response:
    request = parse_request(call.json())
    context = call.context
    if request.model:
        request.model = (await call.state.models.find((request.model,), context)).name
    metadata = context.call_metadata + call.flag_metadata
    is_ours = not request.generation_id and not request.HasField("linger")
    if is_ours:
        request.linger.FromSeconds(_LINGER_S)
    request.generation_id = request.generation_id or uuid.uuid4().hex  # to resume its stream
    return await _stream(call, request, cancels=is_ours, metadata=metadata)


async def _watch(call: Call) -> Response:
    if call.headers.get("last-event-id") == END_ID:
        return Response(status_code=204)  # stops an EventSource from reconnecting
    request = pb.WatchGenerationRequest(generation_id=call.request.path_params["generation_id"])
    return await _stream(call, request, cancels=False, metadata=call.context.call_metadata)


async def _stream(
    call: Call,
    request: pb.GenerateRequest | pb.WatchGenerationRequest,
    *,
    cancels: bool,
    metadata: tuple[tuple[str, str], ...],
) -> Response:
    """Stream the events of a generation.

    Raises:
        GatewayError: the query is invalid, or the caller has its share of calls.
        SafelightError: the generation has failed before its first event.
    """
    images = call.request.query_params.get("images", _DATA)
    if images not in (_DATA, _URL):
        raise invalid_field("images", f"must be {_DATA} or {_URL}, not {images[:100]!r}")
    last_id = call.headers.get("last-event-id", "")

    holder = await call.state.callers.attribute(call.context)

    def link(image: Image) -> str:
        return link_image(call, image, holder)

    async with AsyncExitStack() as closing:
        client = await closing.enter_async_context(call.state.callers.lease(call.context))
        generation = client.stream(
            request, cancels=cancels, metadata=metadata, timeout=_timeout_s(call)
        )
        await closing.enter_async_context(generation)
        first = await read_event(generation)
        return GenerationStream(
            generation,
            first,
            closing.pop_all(),
            known_count=int(last_id) if re.fullmatch(r"\d{1,3}", last_id, re.ASCII) else 0,
            link=link if images == _URL else None,
            pace=lambda: call.state.event_pace.wait(holder),
        )


async def _cancel(call: Call) -> Response:
    request = pb.CancelGenerationRequest(generation_id=call.request.path_params["generation_id"])
    async with call.state.callers.lease(call.context) as client:
        response = await client.call(client.stub.CancelGeneration, request, **_options(call))
    return JSONResponse(to_json(response))


async def _list_models(call: Call) -> Response:
    async with call.state.callers.lease(call.context) as client:
        request = pb.ListModelsRequest()
        response = await client.call(client.stub.ListModels, request, **_options(call))
    # OpenAI's clients ask the same route, and read `data`.
    openai = list_models([model.name for model in response.models])
    return JSONResponse({**openai, **to_json(response)})


def _options(call: Call) -> CallOptions:
    return {"metadata": call.context.call_metadata, "timeout": _timeout_s(call)}


def _timeout_s(call: Call) -> float | None:
    return call.context.timeout_s(call.state.settings.max_request_s)


async def _report_health(request: Request) -> Response:
    """Answer 200 as long as the gateway runs."""
    return JSONResponse({"status": "ok"})


async def _report_readiness(state: AppState) -> Response:
    """Answer whether the service accepts generations."""
    stub = health_pb2_grpc.HealthStub(state.pool.health_channel)
    try:
        with service_errors():
            health = await stub.Check(
                health_pb2.HealthCheckRequest(service=_SERVICE), timeout=_HEALTH_TIMEOUT_S
            )
    except SafelightError as error:
        return render_error(from_service(error))
    if health.status != health_pb2.HealthCheckResponse.SERVING:
        message = "the service does not take generations now"
        return render_error(GatewayError(503, message, "NOT_SERVING"))
    return JSONResponse({"status": "SERVING"})
