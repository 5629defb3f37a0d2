"""Tracing: an interceptor that records a span and a duration of each call, by OpenTelemetry.

The interceptors of opentelemetry-instrumentation-grpc report exceptions, cancellations and passed
deadlines as OK, and use attributes that the semantic conventions have dropped.
"""

import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import aclosing
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import propagate
from opentelemetry.metrics import MeterProvider
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    TracerProvider,
    set_span_in_context,
)

from safelight_service.grpc_server.interceptors.handlers import (
    Handler,
    behaviour_of,
    replace_behaviour,
)
from safelight_service.version import __version__

_Context = grpc.aio.ServicerContext[Any, Any]
_Metadata = Iterable[tuple[str, str | bytes]]

_ERRORS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes that the semantic conventions count as the server's errors."""

_NEARLY_S = 0.1
"""Tolerance: a caller's cancellation may arrive before the server's own timer fires."""

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Traces and times the calls of the named services; must be the first interceptor.

    Continues the trace in the caller's metadata: W3C traceparent and baggage, or the propagators
    that OTEL_PROPAGATORS names.
    """

    def __init__(
        self,
        services: Collection[str],
        tracers: TracerProvider,
        meters: MeterProvider,
    ) -> None:
        self._services = frozenset(services)
        self._tracer = tracers.get_tracer("safelight_service.grpc_server", __version__)
        meter = meters.get_meter("safelight_service.grpc_server", __version__)
        self._durations = meter.create_histogram(
            "rpc.server.call.duration",
            "s",
            "Duration of calls, from the first to the last byte.",
            explicit_bucket_boundaries_advisory=_BUCKETS_S,
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the method's behaviour."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.lstrip("/")
        if handler is None or method.rpartition("/")[0] not in self._services:
            return handler
        return replace_behaviour(handler, self._trace(method, behaviour_of(handler)))

    def _trace(self, method: str, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        async def call(request: Any, context: _Context) -> Any:
            with _Call(self, method, context) as traced:
                response = await behaviour(request, context)
                traced.succeed()
                return response

        async def stream(request: Any, context: _Context) -> AsyncIterator[Any]:
            with _Call(self, method, context) as traced:
                async with aclosing(behaviour(request, context)) as responses:
                    async for response in responses:
                        yield response
                traced.succeed()

        return stream if inspect.isasyncgenfunction(behaviour) else call

    def begin(self, method: str, context: _Context) -> Span:
        """Begin the span of a call, and make it current in the call's task."""
        parent = propagate.extract(context.invocation_metadata() or (), getter=_GETTER)
        span = self._tracer.start_span(
            method,
            parent,
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method, **_peer(context.peer())},
        )
        # Never detached: each call has its own task.
        otel_context.attach(set_span_in_context(span, parent))
        return span

    def end(
        self, span: Span, method: str, code: grpc.StatusCode, details: str, seconds: float
    ) -> None:
        """End the span of a call, and record its duration."""
        attributes = {"rpc.response.status_code": code.name}
        if code in _ERRORS:
            attributes["error.type"] = code.name
            span.set_status(Status(StatusCode.ERROR, details))
        span.set_attributes(attributes)
        span.end()
        labels = {"rpc.system.name": "grpc", "rpc.method": method, **attributes}
        self._durations.record(seconds, labels)


class _Call:
    """A call in progress; its span lasts as long as the context."""

    def __init__(self, interceptor: TracingInterceptor, method: str, context: _Context) -> None:
        self._interceptor = interceptor
        self._method = method
        self._context = context
        self._has_succeeded = False

    def succeed(self) -> None:
        """Note that the behaviour has returned."""
        self._has_succeeded = True

    def __enter__(self) -> "_Call":
        self._began_at = time.monotonic()
        self._span = self._interceptor.begin(self._method, self._context)
        return self

    def __exit__(self, *exc_info: object) -> None:
        code, details = self._find_status()
        seconds = time.monotonic() - self._began_at
        self._interceptor.end(self._span, self._method, code, details, seconds)

    def _find_status(self) -> tuple[grpc.StatusCode, str]:
        code: Any = self._context.code()
        if isinstance(code, int):
            code = _BY_NUMBER[code]
        if code is not None and (self._has_succeeded or code is not grpc.StatusCode.OK):
            return code, _text(self._context.details())
        if self._has_succeeded:
            return grpc.StatusCode.OK, ""
        left_s = self._context.time_remaining()
        if left_s is not None and left_s <= _NEARLY_S:
            return grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline has passed"
        return grpc.StatusCode.CANCELLED, ""


_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


class _MetadataGetter(Getter[_Metadata]):
    """Reads the metadata of a call for OpenTelemetry's propagators."""

    def get(self, carrier: _Metadata, key: str) -> list[str] | None:
        return [str(value) for name, value in carrier if name == key.lower()] or None

    def keys(self, carrier: _Metadata) -> list[str]:
        return [name for name, _ in carrier]


_GETTER = _MetadataGetter()


def _peer(peer: str) -> dict[str, str | int]:
    """Parse gRPC's peer name: ipv4:127.0.0.1:1234, ipv6:%5B::1%5D:1234 or unix:/path."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return {}
    host, _, port = rest.rpartition(":")
    address = host.replace("%5B", "").replace("%5D", "").strip("[]")
    return {"network.peer.address": address, "network.peer.port": int(port or 0)}


def _text(details: str | bytes | None) -> str:
    return details.decode(errors="replace") if isinstance(details, bytes) else details or ""
