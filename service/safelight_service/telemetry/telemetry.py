"""Telemetry: an observer that turns notifications of the service into spans and measurements."""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import structlog
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.trace import (
    NoOpTracerProvider,
    Span,
    TracerProvider,
    get_current_span,
)

from safelight_service.cache.result_cache import TierStats
from safelight_service.core.backend import Backend
from safelight_service.core.events import Completed, Image
from safelight_service.core.observer import Compilation, Observer
from safelight_service.core.timeline import SharedForward, Timeline
from safelight_service.settings import TelemetrySettings
from safelight_service.telemetry import names
from safelight_service.telemetry.metrics import Metrics
from safelight_service.telemetry.providers import Providers
from safelight_service.telemetry.signals import Signals
from safelight_service.telemetry.traces import Traces
from safelight_service.telemetry.usage_metrics import ListAccounts
from safelight_service.version import __version__

if TYPE_CHECKING:
    from safelight_service.generations.state import Generation

_log = structlog.get_logger()

_TICK_S = 0.5
"""Interval of measuring the event loop's lag, and of processing notes of the device thread."""

_MOST_NOTES = 100_000
"""Maximum unprocessed notes of a kind; reached only if the event loop hangs for minutes."""


class Telemetry(Observer):
    """Makes spans and measurements; the device thread only appends notes to its queues."""

    def __init__(
        self,
        settings: TelemetrySettings,
        signals: Signals,
        models: Iterable[str],
        default: str,
        process: str = "safelight-service",
    ) -> None:
        """Set up the exporters; `process` is the default of `service.name`.

        Raises:
            ConfigurationError: the Prometheus address cannot be bound.
        """
        self._models = frozenset(models)
        self._default_model = default
        self._providers = Providers(signals, process)
        self._metrics: Metrics | None = None
        self._traces: Traces | None = None
        if self._providers.tracers is not None and self._providers.processor is not None:
            self._traces = Traces(
                self._providers.tracers,
                self._providers.processor,
                step_spans=settings.step_spans,
                prompts=settings.prompts,
            )
        self._forwards: deque[SharedForward] = deque(maxlen=_MOST_NOTES)
        self.note_forward = self._forwards.append
        self._compilations: deque[Compilation] = deque(maxlen=_MOST_NOTES)
        self.note_compilation = self._compilations.append
        self._ticking: asyncio.Task[None] | None = None

    @property
    def tracers(self) -> TracerProvider:
        """Provider for the spans of calls."""
        return self._providers.tracers or NoOpTracerProvider()

    @property
    def meters(self) -> MeterProvider:
        """Provider for the durations of calls."""
        return self._providers.meters or NoOpMeterProvider()

    @property
    def prometheus_address(self) -> str | None:
        """HOST:PORT of the metrics for Prometheus, or None."""
        return self._providers.prometheus_address

    def start(
        self,
        backend: Backend,
        cache_stats: Mapping[str, TierStats],
        list_accounts: ListAccounts,
    ) -> None:
        """Start to measure a backend and the tiers of a cache; needs a running event loop."""
        if self._providers.meters is not None:
            meter = self._providers.meters.get_meter("safelight_service", __version__)
            self._metrics = Metrics(
                meter, backend.stats, cache_stats, sorted(self._models), list_accounts
            )
        self._ticking = asyncio.create_task(self._tick())
        if self.prometheus_address is not None:
            _log.info("prometheus_ready", address=self.prometheus_address)

    async def close(self) -> None:
        """Export the remaining telemetry; returns soon even without a collector."""
        if self._ticking is not None:
            self._ticking.cancel()
        self._process_notes()
        await self._providers.close()

    def generation_began(self, generation: "Generation") -> None:
        if self._traces is not None:
            model = self._model_of(generation)
            generation.observed = self._traces.begin(model, generation.request, generation.began_at)

    def generation_joined(self, generation: "Generation") -> None:
        if self._traces is not None and isinstance(generation.observed, Span):
            self._traces.join(generation.observed)

    def generation_shares(self, generation: "Generation", timeline: Timeline) -> None:
        if self._traces is not None and isinstance(generation.observed, Span):
            self._traces.share(generation.observed, timeline)

    def generation_ended(self, generation: "Generation") -> Mapping[str, str]:
        accepted, outcome, state = generation.accepted, generation.outcome, generation.state.value
        ended_at = time.monotonic()
        if isinstance(outcome, Completed) and generation.execution is not None:
            ended_at = generation.execution.timeline.ended_at or ended_at
        if self._metrics is not None:
            seconds = ended_at - generation.began_at
            self._metrics.generation_ended(self._model_of(generation), state, outcome, seconds)
        if self._traces is None or not isinstance(generation.observed, Span):
            return {}
        self._traces.end(generation.observed, state, accepted, outcome, ended_at)
        context = generation.observed.get_span_context()
        return {
            "trace_id": format(context.trace_id, "032x"),
            "span_id": format(context.span_id, "016x"),
        }

    def execution_began(self, generation: "Generation", timeline: Timeline) -> None:
        if self._traces is not None and isinstance(generation.observed, Span):
            self._traces.begin_execution(timeline, generation.observed)

    def execution_ended(self, timeline: Timeline) -> None:
        self._process_notes()
        if self._traces is not None:
            self._traces.make_phases(timeline)
        if self._metrics is not None:
            self._metrics.execution_ended(timeline)

    def run_began(self, timeline: Timeline) -> None:
        if self._traces is not None:
            self._traces.continue_execution(timeline)

    def run_ended(self, timeline: Timeline) -> None:
        self._process_notes()
        if self._traces is not None:
            self._traces.make_phases(timeline)

    def image_sent(self, image: Image, began_at: float) -> None:
        if self._traces is not None:
            self._traces.make_sending(image, began_at)

    def call_failed(self, reason: str) -> None:
        get_current_span().set_attribute(names.REASON, reason)

    def reader_stalled(self) -> None:
        if self._metrics is not None:
            self._metrics.reader_stalled()

    def previews_dropped(self, count: int) -> None:
        if self._metrics is not None and count:
            self._metrics.previews_dropped(count)

    def model_loaded(self, name: str, seconds: float) -> None:
        if self._metrics is not None:
            self._metrics.model_loaded(name, seconds)

    def _model_of(self, generation: "Generation") -> str:
        """Return the name of a served model, or OTHER: callers may send any name."""
        name = generation.request.model or self._default_model
        return name if name in self._models else names.OTHER

    def _process_notes(self) -> None:
        """Make spans and measurements of the device thread's notes."""
        while self._forwards:
            forward = self._forwards.popleft()
            if self._metrics is not None:
                self._metrics.forward_made(forward)
            if self._traces is not None:
                self._traces.make_forward(forward)
        while self._compilations:
            compilation = self._compilations.popleft()
            if self._metrics is not None:
                self._metrics.forward_compiled(compilation)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_at = loop.time() + _TICK_S
            await asyncio.sleep(_TICK_S)
            if self._metrics is not None:
                self._metrics.loop_lagged(max(0.0, loop.time() - due_at))
            self._process_notes()
