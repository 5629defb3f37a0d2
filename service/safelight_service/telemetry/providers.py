"""Providers: OpenTelemetry's SDK, configured by its own variables."""

import asyncio
import os
import threading
import uuid
from collections.abc import Callable
from wsgiref.simple_server import WSGIServer

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry, start_http_server

from safelight_service.settings import ConfigurationError
from safelight_service.telemetry.signals import Signals
from safelight_service.version import __version__

_FLUSH_S = 2.0
"""Longest wait for the last export; the process must end soon even without a collector."""


class Providers:
    """Tracer and meter providers; None for signals that are not exported.

    They are not OpenTelemetry's global ones, and register nothing for the exit of the process.
    """

    def __init__(self, signals: Signals, process: str) -> None:
        """Open the Prometheus endpoint, and start the exporter threads.

        Raises:
            ConfigurationError: the address of the endpoint cannot be bound.
        """
        self._signals = signals
        self.resource = _make_resource(process)
        self.prometheus_address: str | None = None
        self.processor: SpanProcessor | None = None
        self.tracers: TracerProvider | None = None
        self.meters: MeterProvider | None = None
        self._web: WSGIServer | None = None
        readers: list[MetricReader] = []
        if signals.prometheus_listen is not None:
            readers.append(self._serve_prometheus(signals.prometheus_listen))
        if signals.exports_metrics:
            readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
        if readers:
            self.meters = MeterProvider(readers, self.resource, shutdown_on_exit=False)
        if signals.exports_traces:
            self.processor = BatchSpanProcessor(OTLPSpanExporter())
            self.tracers = TracerProvider(resource=self.resource, shutdown_on_exit=False)
            self.tracers.add_span_processor(self.processor)

    async def close(self) -> None:
        """Export the remaining telemetry; give up on a collector after `_FLUSH_S` seconds."""
        ends: list[Callable[[], object]] = []
        if self._web is not None:
            ends.append(self._web.shutdown)
        if self.tracers is not None:
            ends.append(self.tracers.shutdown)
        if self.meters is not None:
            ends.append(self.meters.shutdown)
        await asyncio.gather(*(_run_briefly(end) for end in ends))
        if self._web is not None:
            self._web.server_close()

    def _serve_prometheus(self, listen: str) -> MetricReader:
        registry = CollectorRegistry()
        host, _, port = listen.rpartition(":")
        try:
            self._web, _ = start_http_server(int(port), host.strip("[]"), registry)
        except OSError as error:
            raise ConfigurationError(
                f"telemetry.prometheus_listen: cannot listen on {listen}: {error.strerror}"
            ) from None
        self.prometheus_address = f"{host}:{self._web.server_port}"
        return PrometheusMetricReader(scope_info_enabled=False, registry=registry)


async def _run_briefly(work: Callable[[], object]) -> None:
    """Run work that may hang in a daemon thread, and wait for it up to `_FLUSH_S` seconds."""
    loop = asyncio.get_running_loop()
    is_done = asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(is_done.set)

    threading.Thread(target=run, name="safelight-telemetry-end", daemon=True).start()
    try:
        async with asyncio.timeout(_FLUSH_S):
            await is_done.wait()
    except TimeoutError:
        return


def _make_resource(process: str) -> Resource:
    """Describe the process; OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME take precedence."""
    ours = Resource(
        {
            "service.name": process,
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
        }
    )
    configured = Resource.create()
    is_named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return configured.merge(ours) if not is_named else ours.merge(configured)
