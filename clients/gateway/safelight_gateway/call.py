"""A call: one HTTP request with its body read, and how a route answers it."""

import asyncio
import json
import logging
import math
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from safelight import SafelightError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from safelight_gateway.dialects.dialect import ErrorRenderer, Handler
from safelight_gateway.errors import GatewayError, bad_request, from_service, invalid_field
from safelight_gateway.front import BASE_URL, REQUEST_ID
from safelight_gateway.gateway import Gateway
from safelight_gateway.generation import CallContext

_METADATA = re.compile(r"[ -~]+")
"""All that gRPC takes as the value of metadata."""

_TRACE_HEADERS = ("traceparent", "tracestate", "baggage")
_TRUE, _FALSE = ("1", "true"), ("0", "false")
_503_DELAY_S = 1.0
"""Some clients answer 503 by asking again at once."""

_log = logging.getLogger("safelight_gateway")


@dataclass(frozen=True)
class Call:
    """One HTTP request.

    Attributes:
        gateway: What all routes share.
        request: As Starlette gives it.
        body: All of it.
    """

    gateway: Gateway
    request: Request
    body: bytes

    @property
    def headers(self) -> Headers:
        """The request's headers."""
        return self.request.headers

    @property
    def base_url(self) -> str:
        """The gateway's URL as this caller sees it, prefix included, without a slash."""
        return str(self.request.scope[BASE_URL])

    @property
    def request_id(self) -> str:
        """Id of the request, the caller's or a new one."""
        return str(self.request.scope[REQUEST_ID])

    @property
    def context(self) -> CallContext:
        """What is passed on to the service beside the request.

        Raises:
            GatewayError: the token or the deadline cannot be read.
        """
        metadata = [
            (name, self.headers[name])
            for name in _TRACE_HEADERS
            if _METADATA.fullmatch(self.headers.get(name, ""))
        ]
        return CallContext(
            credential=self._credential(),
            metadata=(*metadata, ("x-request-id", self.request_id)),
            deadline_s=self._deadline_s(),
        )

    def json(self) -> dict[str, Any]:
        """Return the body, which is parsed on the first call only.

        Raises:
            GatewayError: it is no JSON object.
        """
        return self._fields

    def flag(self, name: str) -> bool | None:
        """Return a header that is a boolean, read loosely; None if it is not there.

        Raises:
            GatewayError: it is no boolean.
        """
        value = self.headers.get(name)
        return None if value is None else parse_flag(name, value)

    @cached_property
    def _fields(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            raise bad_request("the body must be JSON") from None
        if not isinstance(value, dict):
            raise bad_request("the body must be a JSON object")
        return value

    def _credential(self) -> str | None:
        header = self.headers.get("authorization", "").strip()
        if not header:
            return None
        credential = self.gateway.dialects.read_credential(header)
        if credential is None:
            raise GatewayError(
                401,
                "send a token of this service as Authorization: Bearer TOKEN",
                "UNAUTHENTICATED",
            )
        return credential

    def _deadline_s(self) -> float | None:
        for name in self.gateway.dialects.deadline_headers:
            value = self.headers.get(name)
            if value is None:
                continue
            try:
                timeout_s = float(value)
            except ValueError:
                timeout_s = math.nan
            if not 0 < timeout_s < math.inf:
                raise invalid_field(name, f"must be a number of seconds, not {value!r}")
            return time.monotonic() + timeout_s
        return None


def parse_flag(name: str, value: object) -> bool:
    """Read a boolean, loosely: 1, 0, true or false in any case.

    Raises:
        GatewayError: the value is none of these.
    """
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise invalid_field(name, f"must be true or false, not {text!r}")


def endpoint(
    gateway: Gateway,
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
            call = Call(gateway, request, await _read_body(request, gateway))
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


async def _read_body(request: Request, gateway: Gateway) -> bytes:
    limit = gateway.settings.max_body_kib * 1024
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
