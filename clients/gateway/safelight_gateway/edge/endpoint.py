"""Endpoints: run the handler of a route, and render its errors."""

import asyncio
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping

from safelight import SafelightError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects.dialect import ErrorRenderer, Handler
from safelight_gateway.edge.bodies import read_body
from safelight_gateway.edge.call import Call
from safelight_gateway.edge.middleware import REQUEST_ID
from safelight_gateway.errors import GatewayError, from_service
from safelight_gateway.state import AppState

_503_DELAY_S = 1.0
"""Delay before a 503, which some clients retry at once."""

_CLIENT_GONE = 499

_log = logging.getLogger("safelight_gateway")


def endpoint(
    state: AppState,
    handler: Handler,
    render_error: ErrorRenderer,
    *,
    id_header: str | None = None,
    limit_bytes: int | None = None,
) -> Callable[[Request], Awaitable[Response]]:
    """Return a Starlette endpoint that runs a handler and renders its errors.

    A disconnect cancels the handler, and with it the generation.

    Args:
        state: State of the application.
        handler: Answers the calls.
        render_error: Renders errors.
        id_header: Response header with the request's id, besides x-request-id.
        limit_bytes: Maximum size of a body; None for that of the settings.
    """
    if limit_bytes is None:
        limit_bytes = state.settings.max_body_kib * 1024

    async def respond(request: Request) -> Response:
        try:
            call = Call(state, request, await read_body(request, limit_bytes))
            response = await _until_disconnect(request, handler(call))
        except GatewayError as error:
            response = await render_response(error, render_error)
        except SafelightError as error:
            response = await render_response(from_service(error), render_error)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        except Exception:
            error_id = uuid.uuid4().hex
            _log.exception("internal error, id=%s", error_id)
            internal = GatewayError(500, f"internal error, id={error_id}", "INTERNAL")
            response = await render_response(internal, render_error)
        if id_header is not None:
            response.headers.setdefault(id_header, request.scope[REQUEST_ID])
        return response

    return respond


async def _until_disconnect(request: Request, work: Awaitable[Response]) -> Response:
    """Await the work; cancel it when the client disconnects."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return Response(status_code=_CLIENT_GONE)
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def render_response(
    error: GatewayError, render_error: ErrorRenderer, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the response of an error, with the headers that clients show."""
    response = render_error(error)
    response.headers.update(headers or {})
    response.headers.setdefault("x-error-message", error.ascii_message)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == 503:
        await asyncio.sleep(_503_DELAY_S)
    return response


def render_plain(error: GatewayError) -> Response:
    """Render an error on a route of no dialect."""
    return JSONResponse({"error": error.message}, error.status)
