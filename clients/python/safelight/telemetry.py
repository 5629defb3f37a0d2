"""Traces of calls: interceptors that give each a client span and send its context.

`Client` and `AsyncClient` use them if OpenTelemetry is imported before they connect. For other
channels:

>>> import grpc
>>> from safelight.telemetry import TracingInterceptor
>>> channel = grpc.intercept_channel(
...     grpc.insecure_channel("localhost:50051"), TracingInterceptor(target="localhost:50051")
... )

Each attempt of a call is a span. It is an error unless the status is OK or CANCELLED.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from safelight._version import __version__

_T = TypeVar("_T")
_Metadata = tuple[tuple[str, str | bytes], ...]


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: _Metadata
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Calls:
    """Begins and ends the spans of calls."""

    def __init__(self, target: str = "", tracers: TracerProvider | None = None) -> None:
        """Make an interceptor.

        Args:
            target: Target of the channel, for `server.address` and `server.port`.
            tracers: Provider of tracers; by default OpenTelemetry's global one.
        """
        self._tracer = trace.get_tracer("safelight", __version__, tracers)
        self._server = _parse_target(target)

    def _begin(self, method: str | bytes, metadata: Iterable[Any] | None) -> tuple[Span, _Metadata]:
        """Begin the span of a call; return it, and the metadata with its trace context."""
        name = (method.decode() if isinstance(method, bytes) else method).lstrip("/")
        span = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            attributes={"rpc.system.name": "grpc", "rpc.method": name, **self._server},
        )
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        kept = ((key, value) for key, value in metadata or () if key not in carrier)
        return span, (*kept, *((key.lower(), value) for key, value in carrier.items()))


class _BlockingCalls(_Calls):
    def _intercept(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        span, metadata = self._begin(details.method, details.metadata)

        def end(call: Any) -> None:
            _end(span, call.code(), call.details())

        try:
            call = continuation(
                _CallDetails(
                    details.method,
                    details.timeout,
                    metadata,
                    details.credentials,
                    details.wait_for_ready,
                    details.compression,
                ),
                request,
            )
        except BaseException:
            span.end()
            raise
        if hasattr(call, "add_done_callback"):
            call.add_done_callback(end)
        elif not call.add_callback(lambda: end(call)):
            end(call)
        return call


_intercept_blocking: Any = _BlockingCalls._intercept
"""Typed as Any: gRPC's methods name their arguments differently."""


class TracingInterceptor(
    _BlockingCalls,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Traces the calls of a channel, of every kind."""

    intercept_unary_unary = _intercept_blocking
    intercept_unary_stream = _intercept_blocking
    intercept_stream_unary = _intercept_blocking
    intercept_stream_stream = _intercept_blocking


class _AsyncCalls(_Calls):
    async def _intercept(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        span, metadata = self._begin(details.method, details.metadata)

        def end(call: Any) -> None:
            _end(span, _result_of(call.code()), _result_of(call.details()))

        try:
            call = await continuation(
                grpc.aio.ClientCallDetails(
                    details.method,
                    details.timeout,
                    grpc.aio.Metadata(*metadata),
                    details.credentials,
                    details.wait_for_ready,
                ),
                request,
            )
        except BaseException:
            span.end()
            raise
        call.add_done_callback(end)
        return call


_intercept_async: Any = _AsyncCalls._intercept


class _AsyncUnaryUnary(_AsyncCalls, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary = _intercept_async


class _AsyncUnaryStream(_AsyncCalls, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream = _intercept_async


class _AsyncStreamUnary(_AsyncCalls, grpc.aio.StreamUnaryClientInterceptor):
    intercept_stream_unary = _intercept_async


class _AsyncStreamStream(_AsyncCalls, grpc.aio.StreamStreamClientInterceptor):
    intercept_stream_stream = _intercept_async


def async_tracing_interceptors(
    target: str = "", tracers: TracerProvider | None = None
) -> list[grpc.aio.ClientInterceptor]:
    """Return interceptors that trace the calls of a channel of grpc.aio, one for each kind of call.

    The arguments are those of `TracingInterceptor`.
    """
    kinds = (_AsyncUnaryUnary, _AsyncUnaryStream, _AsyncStreamUnary, _AsyncStreamStream)
    return [kind(target, tracers) for kind in kinds]


def _end(span: Span, code: grpc.StatusCode, details: str | None) -> None:
    span.set_attribute("rpc.response.status_code", code.name)
    if code not in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED):
        span.set_attribute("error.type", code.name)
        span.set_status(Status(StatusCode.ERROR, details or ""))
    span.end()


def _result_of(finished: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of a coroutine that does not wait."""
    try:
        finished.send(None)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    finished.close()
    raise AssertionError("a call that is done has a status")


def _parse_target(target: str) -> dict[str, str | int]:
    address = target.rpartition("/")[2] if not target.startswith("unix:") else target
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not host:
        return {"server.address": address} if address else {}
    return {"server.address": host.strip("[]"), "server.port": int(port)}
