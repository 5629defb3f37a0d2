"""Measurements that need a GPU, or a reader that does not read."""

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from safelight_service.core.backend import BackendStats
from safelight_service.core.observer import Compilation
from safelight_service.telemetry.metrics import Metrics


def test_rare_events_are_measured_too() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    load = BackendStats(
        3, 2, {"shapes": 7}, {"cuda:0": {"allocated": 5, "reserved": 6, "total": 9}}
    )
    metrics = Metrics(provider.get_meter("test"), lambda: load, {}, ["shapes", "cold"])
    metrics.previews_dropped(4)
    metrics.reader_stalled()
    metrics.forward_compiled(Compilation("shapes", "recompile"))
    data = reader.get_metrics_data()
    assert data is not None
    reported = {
        (metric.name, *(str(value) for _, value in sorted((point.attributes or {}).items()))): point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    values = {key: getattr(point, "value", None) for key, point in reported.items()}
    del values[("process.memory.usage",)]
    assert values == {
        ("safelight.device.memory", "cuda:0", "allocated"): 5,
        ("safelight.device.memory", "cuda:0", "reserved"): 6,
        ("safelight.device.memory", "cuda:0", "total"): 9,
        ("safelight.generations.running",): 2,
        ("safelight.model.compilations", "cold", "new_shape"): 0,
        ("safelight.model.compilations", "cold", "recompile"): 0,
        ("safelight.model.compilations", "shapes", "new_shape"): 0,
        ("safelight.model.compilations", "shapes", "recompile"): 1,
        ("safelight.model.resident", "cold"): 0,
        ("safelight.model.resident", "shapes"): 1,
        ("safelight.model.size", "shapes"): 7,
        ("safelight.previews.dropped",): 4,
        ("safelight.queue.depth",): 3,
        ("safelight.readers.stalled",): 1,
    }
