"""Open calls: an interceptor that limits the calls that each caller has open at the same time."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from safelight_service.auth.tokens import current_caller
from safelight_service.core.errors import (
    FieldViolation,
    InvalidRequestError,
    RequestTimeoutError,
    SafelightError,
    TooManyCallsError,
)
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.grpc_server.interceptors.errors import MALFORMED
from safelight_service.grpc_server.interceptors.handlers import (
    Behaviour,
    Handler,
    behaviour_of,
    replace_behaviour,
)
from safelight_service.grpc_server.status import reason_of, to_status
from safelight_service.grpc_server.tenants import find_tenant
from safelight_settings import LineLimit, TrustedProxies

_Context = grpc.aio.ServicerContext[Any, Any]

_HEALTH = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}"
_KINDS = {f"{_HEALTH}/Check": "check", f"{_HEALTH}/Watch": "watch"}
"""Kinds of calls that count apart, by method."""

_WATCH_SHARE = 50
"""A caller may have this part of its calls as `Health/Watch`, which never ends by itself."""

_ARRIVING = 16
"""Requests of a caller that may arrive at the same time, each of up to 4 MiB; others wait."""

_REFUSALS = (TooManyCallsError, InvalidRequestError, RequestTimeoutError)

_log = structlog.get_logger()


@dataclass(slots=True)
class _Calls:
    """Open calls of a caller, and places for the requests of those that read one."""

    count: int = 0
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_ARRIVING))


class OpenCallsInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls of a caller that has `max_count` open ones, before it reads their requests.

    A caller is a token, or a host where calls have no token. Health checks count apart, so that
    no other calls of their host can cause their refusal: a supervisor would restart the service.
    Of watches of the health it has a fiftieth, so that few hosts cannot hold all connections.
    A request that has not arrived after `request_s` seconds is refused, too.
    """

    def __init__(
        self,
        max_count: int,
        request_s: float,
        proxies: TrustedProxies,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        """`proxies` are the peers that may state the addresses of their clients."""
        self._max_count = max_count
        self._observer = observer
        self._request_s = request_s
        self._proxies = proxies
        self._callers: dict[str, _Calls] = {}
        self._lines = LineLimit(max_count=1)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the method's behaviour, so that it reads its request itself."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        kind = _KINDS.get(handler_call_details.method, "call")
        behaviour = self._limit(handler, kind)
        return replace_behaviour(handler, behaviour, reads_stream=True)

    def _limit(self, handler: Handler, kind: str) -> Behaviour:
        behaviour = behaviour_of(handler)

        async def call(requests: AsyncIterator[Any], context: _Context) -> Any:
            try:
                with self._enter(kind, context) as places:
                    request = requests
                    if not handler.request_streaming:
                        request = await self._read(context, places)
                    return await behaviour(request, context)
            except _REFUSALS as error:
                self._observer.call_failed(reason_of(error))
                await context.abort_with_status(to_status(error))

        async def stream(requests: AsyncIterator[Any], context: _Context) -> AsyncIterator[Any]:
            try:
                with self._enter(kind, context) as places:
                    request = requests
                    if not handler.request_streaming:
                        request = await self._read(context, places)
                    async with aclosing(behaviour(request, context)) as responses:
                        async for response in responses:
                            yield response
            except _REFUSALS as error:
                self._observer.call_failed(reason_of(error))
                await context.abort_with_status(to_status(error))

        return stream if inspect.isasyncgenfunction(behaviour) else call

    async def _read(self, context: _Context, places: asyncio.Semaphore) -> Any:
        """Read the request.

        Raises:
            InvalidRequestError: the call has ended without a request, or with a malformed one.
            RequestTimeoutError: the request has not arrived in time.
        """
        try:
            async with asyncio.timeout(self._request_s) as limit, places:
                request = await context.read()
        except TimeoutError:
            if not limit.expired():
                raise
            raise RequestTimeoutError(self._request_s) from None
        except DecodeError:  # of a method without an interceptor of its own
            raise InvalidRequestError([MALFORMED]) from None
        if request is grpc.aio.EOF:
            raise InvalidRequestError([FieldViolation("", "the call has no request")])
        return request

    @contextmanager
    def _enter(self, kind: str, context: _Context) -> Iterator[asyncio.Semaphore]:
        """Count a call as open until the block ends; yield the places of the caller's requests.

        Raises:
            TooManyCallsError: the caller has as many as it may.
        """
        caller = current_caller.get()
        metadata = context.invocation_metadata() or ()
        tenant = find_tenant(caller, context.peer(), metadata, self._proxies)
        name = f"{kind} {'of' if caller is None else 'of token'} {tenant.name}"
        calls = self._callers.setdefault(name, _Calls())
        max_count = self._max_count
        if kind == "watch":
            max_count = max(1, max_count // _WATCH_SHARE)
        if calls.count >= max_count:
            error = TooManyCallsError(max_count)
            log_refusal(error, self._lines)
            raise error
        calls.count += 1
        try:
            yield calls.places
        finally:
            calls.count -= 1
            if not calls.count:
                del self._callers[name]


def log_refusal(error: SafelightError, lines: LineLimit) -> None:
    """Log that calls are refused, unless it was logged a moment ago."""
    reason = reason_of(error)
    admitted = lines.admit(reason)
    if admitted is not None:
        _log.warning("calls_refused", reason=reason, **admitted)
