"""The meter: all seconds of the device are charged to the jobs that it worked for."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from safelight_service.core.errors import InternalError
from safelight_service.core.events import Usage
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.engine.job import Job
from safelight_service.engine.models.loaded_model import LoadedModel
from support.engine.fake_costs import timed
from support.engine.job_runs import Recorder, make_batcher, make_job, take_steps
from support.engine.simulated_gpu import move, simulate_gpu
from support.engine.tiny_models import TinyModels, reload
from support.pipelines.families import make_pipeline
from support.pipelines.safety_checkers import make_checked_pipeline


class EndRecorder(Recorder):
    """Recorder of the usage that is known when the job's events end."""

    job: Job
    usage: Usage

    def close(self, error: BaseException | None = None) -> None:
        super().close(error)
        self.usage = self.job.timeline.usage


def add(batcher: StepBatcher, model: LoadedModel, token: str, **request: Any) -> Job:
    recorder = EndRecorder()
    recorder.job = job = make_job(model, recorder, **request)
    job.timeline.token = token
    batcher.add(job)
    return job


def usage_at_end(job: Job) -> Usage:
    assert isinstance(job.relay, EndRecorder)
    return job.relay.usage


def test_every_second_is_charged_once_whatever_becomes_of_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Text encoding, guided and merged forwards, decoding and safety checks, by their rows."""
    model = reload(make_checked_pipeline())
    vae = model.adapter.pipeline.vae

    def break_wide(_: Any, arguments: Any) -> None:
        if arguments[0].shape[-1] > 8:
            raise RuntimeError("a broken decoder")

    hook = vae.decoder.register_forward_pre_hook(break_wide)
    batcher = make_batcher()
    costs = {"text_s": 3.0, "forward_s": 1.0, "row_s": 0.5, "decode_s": 7.0, "check_s": 5.0}
    with timed(model, monkeypatch, **costs):
        pair = add(batcher, model, "a", image_count=2, width=64, height=64)
        made = add(batcher, model, "b", num_inference_steps=4, width=64, height=64)
        broken = add(batcher, model, "c", width=96, height=64)
        left = add(batcher, model, "d", num_inference_steps=50, width=64, height=64)
        left.timeline.abandoned_at = 0.0
        while len(batcher.jobs) > 1:
            take_steps(batcher, 1)
        left.cancel()
        take_steps(batcher)
        total_s = time.monotonic()
    hook.remove()
    seconds = batcher.device_time_s
    assert sum(seconds.values()) == pytest.approx(total_s)
    assert batcher.busy_s == pytest.approx(total_s)
    assert isinstance(broken.relay, Recorder)
    assert isinstance(broken.relay.error, InternalError)
    for job in (pair, made, broken, left):
        charged = seconds["tiny", job.timeline.token]
        assert job.timeline.usage.device_time_s == pytest.approx(charged)
        assert usage_at_end(job).device_time_s == pytest.approx(charged)
        assert charged > 3.0
    assert usage_at_end(pair).image_count == 2
    assert usage_at_end(pair).pixel_count == 2 * 64 * 64
    assert usage_at_end(pair).step_count == 6
    assert usage_at_end(broken) == Usage(usage_at_end(broken).device_time_s, 0, 0, 3)
    assert usage_at_end(left).step_count == left.images[0].step_count > 0


def test_images_that_share_a_forward_share_its_time_by_rows(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reload(tiny_models["flux-dev"].adapter.pipeline)
    batcher = make_batcher()
    with timed(model, monkeypatch, forward_s=8.0):
        add(batcher, model, "a", image_count=3, num_inference_steps=9)
        add(batcher, model, "b", num_inference_steps=9)
        take_steps(batcher, 2)
        assert batcher.device_time_s == {("tiny", "a"): 12.0, ("tiny", "b"): 4.0}
        for job in batcher.jobs:
            job.cancel()
        take_steps(batcher)


@pytest.mark.parametrize("make", [make_checked_pipeline, lambda: make_pipeline("sd15")])
def test_a_gpu_has_told_all_seconds_of_a_job_when_its_last_pixels_are_there(
    make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if other jobs keep the device at work, so that the meter hears of them later."""
    pipeline = make()
    move(pipeline)
    with simulate_gpu(monkeypatch):
        model = reload(pipeline)
        batcher = make_batcher()
        first = add(batcher, model, "a", num_inference_steps=2)
        other = add(batcher, model, "b", num_inference_steps=6)
        while first in batcher.jobs:
            take_steps(batcher, 1)
        span_count: float = 2 + (
            model.safety_checker is not None
        )  # start, decode and check, of 1 ms each
        span_count += sum(count / width for width, count in first.widths.items())
        assert usage_at_end(first).device_time_s == pytest.approx(span_count / 1000)
        assert batcher.device_time_s["tiny", "a"] < usage_at_end(first).device_time_s
        take_steps(batcher)
        for job in (first, other):
            charged = batcher.device_time_s["tiny", job.timeline.token]
            assert job.timeline.usage.device_time_s == pytest.approx(charged)
            assert usage_at_end(job).device_time_s == pytest.approx(charged)
