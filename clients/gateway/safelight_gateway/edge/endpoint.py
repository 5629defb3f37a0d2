"""An endpoint: runs the handler of a route and renders its errors."""

import asyncio
import logging
import math
import uuid
from collections.abc import Awaitable, Callable

from safelight import SafelightError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects.dialect import ErrorRenderer, Handler
from safelight_gateway.edge.call import Call
from safelight_gateway.edge.middleware import REQUEST_ID
from safelight_gateway.errors import GatewayError, bad_request, from_service
from safelight_gateway.state import AppState

_503_DELAY_S = 1.0
"""Some clients answer 503 by asking again at once."""

_log = logging.getLogger("safelight_gateway")


def endpoint(
    state: AppState,
    handler: Handler,
    render_error: ErrorRenderer,
    *,
    id_header: str | None = None,
) -> Callable[[Request], Awaitable[Response]]:
    """Return a Starlette endpoint that runs a handler and renders what goes wrong.

    A caller that disconnects cancels the handler, and with it the generation. `id_header`
    is another header for the request's id.
    """

    async def respond(request: Request) -> Response:
        try:
            call = Call(state, request, await _read_body(request, state))
            response = await _until_disconnect(request, handler(call))
        except GatewayError as error:
            response = await _render(error, render_error)
        except SafelightError as error:
            response = await _render(from_service(error), render_error)
        except Exception:
            error_id = uuid.uuid4().hex
            _log.exception("internal error, id=%s", error_id)
            internal = GatewayError(500, f"internal error, id={error_id}", "INTERNAL")
            response = await _render(internal, render_error)
        if id_header is not None:
            response.headers.setdefault(id_header, request.scope[REQUEST_ID])
        return response

    return respond


async def _read_body(request: Request, state: AppState) -> bytes:
    limit = state.settings.max_body_kib * 1024
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise bad_request(f"the body may have at most {limit} bytes", 413)
    return bytes(body)


async def _until_disconnect(request: Request, work: Awaitable[Response]) -> Response:
    """Await the work, but cancel it as soon as nobody waits for its response."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return Response(status_code=499)  # nobody reads it
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _render(error: GatewayError, render_error: ErrorRenderer) -> Response:
    response = render_error(error)
    response.headers.setdefault("x-error-message", error.ascii_message)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == 503:
        await asyncio.sleep(_503_DELAY_S)
    return response


def render_plain(error: GatewayError) -> Response:
    """Render an error where no dialect is spoken."""
    return JSONResponse({"error": error.message}, error.status)
