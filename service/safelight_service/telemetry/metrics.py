"""Metrics: instruments of the service; labels are models, codes and the like, never ids."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation

from safelight_service.cache.result_cache import TierStats
from safelight_service.core.backend import BackendStats
from safelight_service.core.events import Completed
from safelight_service.core.observer import Compilation, CompilationReason
from safelight_service.core.timeline import SharedForward, Timeline
from safelight_service.telemetry import names
from safelight_service.telemetry.usage_metrics import ListAccounts, UsageMetrics

_LONG_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
"""Buckets of durations that may be minutes, in seconds."""

_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Buckets of steps, forwards and lags, in seconds."""

_WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)

_STATM = Path("/proc/self/statm")
_PAGE_BYTES = 4096


class Metrics:
    """Records notifications of the observer, and measures the rest when metrics are collected."""

    def __init__(
        self,
        meter: Meter,
        measure: Callable[[], BackendStats],
        cache_stats: Mapping[str, TierStats],
        models: Iterable[str],
        list_accounts: ListAccounts,
    ) -> None:
        self._measure = measure
        self._cache_stats = cache_stats
        self._models = tuple(models)

        def histogram(
            name: str, unit: str, description: str, buckets: Sequence[float]
        ) -> Histogram:
            return meter.create_histogram(
                name, unit, description, explicit_bucket_boundaries_advisory=buckets
            )

        self._durations = histogram(
            "gen_ai.server.request.duration",
            "s",
            "Duration of generations, from the call to their end.",
            _LONG_S,
        )
        self._generations = meter.create_counter(
            "safelight.generations", "{generation}", "Ended generations."
        )
        self._queue_waits = histogram(
            "safelight.queue.wait",
            "s",
            "Time that generations wait in the queue for the device.",
            _LONG_S,
        )
        self._steps = histogram(
            "safelight.step.duration",
            "s",
            "Duration of the denoising steps of one image.",
            _SHORT_S,
        )
        self._forwards = histogram(
            "safelight.forward.duration",
            "s",
            "Duration of the denoiser's forwards, measured on the host.",
            _SHORT_S,
        )
        self._widths = histogram(
            "safelight.forward.width", "{image}", "Images that shared a forward.", _WIDTHS
        )
        self._usage = UsageMetrics(meter, measure, list_accounts)
        self._previews = meter.create_counter(
            "safelight.previews.dropped", "{preview}", "Unread previews replaced by newer ones."
        )
        self._stalls = meter.create_counter(
            "safelight.readers.stalled", "{call}", "Calls cut off because their reader stalled."
        )
        self._load_times = histogram(
            "safelight.model.load.duration", "s", "Time to load a model, warm-up included.", _LONG_S
        )
        self._compilations = meter.create_counter(
            "safelight.model.compilations",
            "{compilation}",
            "Forwards compiled after the warm-up of their model.",
        )
        for model in self._models:
            for reason in get_args(CompilationReason):
                # Start at 0, so that the first compilation shows as an increase.
                self._compilations.add(0, _compilation_labels(Compilation(model, reason)))
        self._lags = histogram(
            "safelight.event_loop.lag", "s", "Delay of the event loop's wake-ups.", _SHORT_S
        )
        meter.create_observable_counter(
            "safelight.device.busy", [self._busy_times], "s", "Time in which a device was at work."
        )
        meter.create_observable_gauge(
            "safelight.queue.depth", [self._depth], "{generation}", "Generations in the queue."
        )
        meter.create_observable_gauge(
            "safelight.generations.running",
            [self._running],
            "{generation}",
            "Generations on the device.",
        )
        meter.create_observable_gauge(
            "safelight.model.resident", [self._resident], "{model}", "Whether a model is in memory."
        )
        meter.create_observable_gauge(
            "safelight.model.size", [self._sizes], "By", "Size of the weights of a model in memory."
        )
        meter.create_observable_gauge(
            "safelight.device.memory", [self._memory], "By", "Memory of a GPU, by state."
        )
        meter.create_observable_gauge(
            "process.memory.usage", [_resident_set], "By", "Resident memory of the process."
        )
        meter.create_observable_counter(
            "safelight.cache.lookups", [self._lookups], "{lookup}", "Lookups in the result cache."
        )
        meter.create_observable_gauge(
            "safelight.cache.size",
            [self._cache_sizes],
            "By",
            "Size of the images in the result cache.",
        )

    def generation_ended(self, model: str, state: str, outcome: object, seconds: float) -> None:
        """Record a generation that has ended, `seconds` after its call."""
        cache = outcome.cache.value if isinstance(outcome, Completed) else "none"
        labels = {names.REQUEST_MODEL: model, names.STATE: state, names.CACHE: cache}
        self._generations.add(1, labels)
        timed = {
            names.OPERATION: names.GENERATE_CONTENT,
            names.PROVIDER: names.SAFELIGHT,
            names.REQUEST_MODEL: model,
        }
        if state == "failed":
            timed[names.ERROR_TYPE] = type(outcome).__name__
        self._durations.record(seconds, timed)

    def execution_ended(self, timeline: Timeline) -> None:
        """Record the images, steps and waits of an execution."""
        model = {names.REQUEST_MODEL: timeline.model}
        if timeline.queued_at is not None and timeline.started_at is not None:
            self._queue_waits.record(timeline.started_at - timeline.queued_at, model)
        for image in timeline.images:
            if image.text_encoded_at is None:
                continue
            before = image.text_encoded_at
            for step_at in image.step_ends:
                self._steps.record(step_at - before, model)
                before = step_at
        self._usage.add(timeline)

    def forward_made(self, forward: SharedForward) -> None:
        """Record a forward."""
        model = {names.REQUEST_MODEL: forward.members[0][0].timeline.model}
        self._forwards.record(forward.ended_at - forward.began_at, model)
        self._widths.record(len(forward.members), model)

    def previews_dropped(self, count: int) -> None:
        """Record unread previews that newer ones have replaced."""
        self._previews.add(count)

    def reader_stalled(self) -> None:
        """Record a call that was cut off."""
        self._stalls.add(1)

    def model_loaded(self, name: str, seconds: float) -> None:
        """Record a load, in seconds."""
        self._load_times.record(seconds, {names.REQUEST_MODEL: name})

    def forward_compiled(self, compilation: Compilation) -> None:
        """Record a compilation."""
        self._compilations.add(1, _compilation_labels(compilation))

    def loop_lagged(self, seconds: float) -> None:
        """Record the delay of a wake-up of the event loop, in seconds."""
        self._lags.record(seconds)

    def _busy_times(self, _: CallbackOptions) -> Iterable[Observation]:
        for device, seconds in self._measure().busy_s.items():
            yield Observation(seconds, {names.DEVICE: device})

    def _depth(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self._measure().waiting_count)

    def _running(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self._measure().running_count)

    def _resident(self, _: CallbackOptions) -> Iterable[Observation]:
        resident = self._measure().resident_bytes
        for name in self._models:
            yield Observation(int(name in resident), {names.REQUEST_MODEL: name})

    def _sizes(self, _: CallbackOptions) -> Iterable[Observation]:
        for name, size_bytes in self._measure().resident_bytes.items():
            yield Observation(size_bytes, {names.REQUEST_MODEL: name})

    def _memory(self, _: CallbackOptions) -> Iterable[Observation]:
        for device, states in self._measure().memory_bytes.items():
            for state, size_bytes in states.items():
                yield Observation(size_bytes, {names.DEVICE: device, names.MEMORY_STATE: state})

    def _lookups(self, _: CallbackOptions) -> Iterable[Observation]:
        for tier, stats in self._cache_stats.items():
            for result in ("hits", "misses", "errors"):
                labels = {names.CACHE_TIER: tier, names.CACHE_RESULT: result}
                yield Observation(getattr(stats, result), labels)

    def _cache_sizes(self, _: CallbackOptions) -> Iterable[Observation]:
        for tier, stats in self._cache_stats.items():
            yield Observation(stats.size_bytes, {names.CACHE_TIER: tier})


def _compilation_labels(compilation: Compilation) -> dict[str, str]:
    return {
        names.REQUEST_MODEL: compilation.model,
        names.COMPILATION_REASON: compilation.reason,
    }


def _resident_set(_: CallbackOptions) -> Iterable[Observation]:
    if _STATM.exists():
        yield Observation(int(_STATM.read_text().split()[1]) * _PAGE_BYTES)
