"""Measurements that need a GPU, tokens, or a reader that does not read."""

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from safelight_service.core.backend import BackendStats
from safelight_service.core.observer import Compilation
from safelight_service.core.timeline import Timeline
from safelight_service.telemetry.metrics import Metrics


def make_cancelled_timeline() -> Timeline:
    """Make the timeline of two images that a token had begun, of which one was finished."""
    timeline = Timeline(model="shapes", token="one", pixel_count=64 * 64)
    made, begun = timeline.add_image(), timeline.add_image()
    made.text_encoded_at = begun.text_encoded_at = 1.0
    made.step_ends, begun.step_ends = [2.0, 3.0], [2.0]
    made.encoded_at = 4.0
    return timeline


def list_accounts() -> list[tuple[str, str]]:
    return [("shapes", "one"), ("shapes", "two")]


def test_rare_events_are_measured_too() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    load = BackendStats(
        3,
        2,
        {"shapes": 7},
        {"cuda:0": {"allocated": 5, "reserved": 6, "total": 9}},
        {("shapes", ""): 0.5, ("shapes", "one"): 1.5},
        {"cuda:0": 2.0},
    )
    metrics = Metrics(
        provider.get_meter("test"), lambda: load, {}, ["shapes", "cold"], list_accounts
    )
    metrics.previews_dropped(4)
    metrics.reader_stalled()
    metrics.execution_ended(make_cancelled_timeline())
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
    del values[("safelight.step.duration", "shapes")]
    assert values == {
        ("safelight.device.busy", "cuda:0"): 2.0,
        ("safelight.device.memory", "cuda:0", "allocated"): 5,
        ("safelight.device.memory", "cuda:0", "reserved"): 6,
        ("safelight.device.memory", "cuda:0", "total"): 9,
        ("safelight.device.time", "shapes", ""): 0.5,
        ("safelight.device.time", "shapes", "one"): 1.5,
        ("safelight.device.time", "shapes", "two"): 0,
        ("safelight.generations.running",): 2,
        ("safelight.images", "shapes", "one"): 1,
        ("safelight.images", "shapes", "two"): 0,
        ("safelight.model.compilations", "cold", "new_shape"): 0,
        ("safelight.model.compilations", "cold", "recompile"): 0,
        ("safelight.model.compilations", "shapes", "new_shape"): 0,
        ("safelight.model.compilations", "shapes", "recompile"): 1,
        ("safelight.model.resident", "cold"): 0,
        ("safelight.model.resident", "shapes"): 1,
        ("safelight.model.size", "shapes"): 7,
        ("safelight.pixels", "shapes", "one"): 4096,
        ("safelight.pixels", "shapes", "two"): 0,
        ("safelight.previews.dropped",): 4,
        ("safelight.queue.depth",): 3,
        ("safelight.readers.stalled",): 1,
        ("safelight.steps", "shapes", "one"): 3,
        ("safelight.steps", "shapes", "two"): 0,
    }
