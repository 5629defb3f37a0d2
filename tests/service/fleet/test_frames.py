"""Moments of a run on another host."""

from safelight_service.core.timeline import Timeline
from safelight_service.fleet.frames import Moments


def test_a_run_keeps_the_moments_of_the_call_that_loaded_the_model() -> None:
    timeline = Timeline(loading_at=1.0, loaded_at=2.0)
    Moments.of(Timeline(queued_at=3.0)).write_to(timeline)
    assert timeline.loading_at == 1.0
    assert timeline.queued_at is not None
    assert timeline.end().model_load_s == 1.0
