"""Fairness: which tenant's images a batcher runs next, by a clock of the test's own."""

from collections.abc import Sequence
from typing import Any

import pytest

from safelight_service.core.errors import DeadlineError
from safelight_service.core.tenant import Tenant
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.engine.job import Job
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.settings import BatchingSettings
from support.engine.fake_costs import timed
from support.engine.job_runs import Recorder, images_of, make_batcher, make_job, take_steps
from support.engine.tiny_models import MERGING, TinyModels, reload

ALONE = BatchingSettings(max_width=1)
A, B = Tenant("a"), Tenant("b")


@pytest.fixture
def model(tiny_models: TinyModels) -> LoadedModel:
    """FLUX.1-dev with one image in a forward."""
    return reload(tiny_models["flux-dev"].adapter.pipeline, ALONE)


def add(batcher: StepBatcher, model: LoadedModel, tenant: Tenant, **request: Any) -> Job:
    job = make_job(model, Recorder(), tenant=tenant, **request)
    batcher.add(job)
    return job


def count_steps(jobs: Sequence[Job]) -> int:
    return sum(image.step_count for job in jobs for image in job.images)


def test_one_request_at_a_time_is_served_beside_eighty(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes twice its own time, since two tenants share the device."""
    batcher = make_batcher()
    with timed(model, monkeypatch):
        flood = [add(batcher, model, A, num_inference_steps=8) for _ in range(80)]
        take_steps(batcher, 3)
        for _ in range(4):
            job = add(batcher, model, B, num_inference_steps=3)
            take_steps(batcher, 7)
            assert job not in batcher.jobs
    assert count_steps(flood) == pytest.approx(3 + 4 * 4, abs=1)


def test_backlogged_tenants_share_by_weight(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (1.0, 2.0, 4.0)
    batcher = make_batcher()
    with timed(model, monkeypatch):
        jobs = [
            [add(batcher, model, Tenant(str(weight), weight)) for _ in range(30)]
            for weight in weights
        ]
        take_steps(batcher, 70)
    assert [count_steps(each) for each in jobs] == pytest.approx([10, 20, 40], abs=1)


def test_time_that_a_tenant_does_not_use_goes_to_the_others(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And gives it no credit: from its arrival on, both have half."""
    batcher = make_batcher()
    with timed(model, monkeypatch):
        first = add(batcher, model, A, num_inference_steps=60)
        take_steps(batcher, 20)
        assert first.images[0].step_count == 20
        second = add(batcher, model, B, num_inference_steps=60)
        take_steps(batcher, 20)
    assert [first.images[0].step_count, second.images[0].step_count] == pytest.approx(
        [30, 10], abs=1
    )


def test_a_merged_forward_is_charged_by_rows(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reload(tiny_models["flux-dev"].adapter.pipeline, MERGING)
    batcher = make_batcher()
    with timed(model, monkeypatch, forward_s=0.0, row_s=1.0):
        add(batcher, model, A, image_count=3, num_inference_steps=9)
        add(batcher, model, B, num_inference_steps=9)
        take_steps(batcher, 4)
    assert batcher.shares.virtual_s == {"a": 12.0, "b": 4.0}


def test_a_place_in_each_forward_is_enough_for_a_share(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reload(tiny_models["flux-dev"].adapter.pipeline, BatchingSettings(max_width=4))
    batcher = make_batcher()
    with timed(model, monkeypatch, forward_s=0.0, row_s=1.0):
        for _ in range(8):
            add(batcher, model, A, num_inference_steps=20)
        take_steps(batcher, 2)
        single = add(batcher, model, B, num_inference_steps=10)
        take_steps(batcher, 13)
    assert single not in batcher.jobs
    assert max(single.widths) == 4  # others ride along


def test_starts_and_decodes_count(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = make_batcher()
    with timed(model, monkeypatch, text_s=5.0, forward_s=1.0, decode_s=7.0):
        add(batcher, model, A, num_inference_steps=2, inputs="a picture of its own")
        rest = add(batcher, model, B, num_inference_steps=99, inputs="another picture")
        while len(batcher.jobs) == 2:
            take_steps(batcher, 1)
        assert batcher.shares.virtual_s["a"] == 5 + 2 + 7
        assert batcher.shares.virtual_s["b"] == 5 + rest.images[0].step_count
    rest.cancel()
    take_steps(batcher)
    assert not batcher.shares.virtual_s


def test_abandoned_work_runs_last_and_is_as_before_when_its_caller_returns(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = make_batcher()
    with timed(model, monkeypatch):
        left = add(batcher, model, A, num_inference_steps=20)
        take_steps(batcher, 1)
        stays = add(batcher, model, A, num_inference_steps=20)
        other = add(batcher, model, B, num_inference_steps=20)
        take_steps(batcher, 3)
        left.timeline.abandoned_at = 4.0
        steps = left.images[0].step_count
        take_steps(batcher, 10)
        assert left.images[0].step_count == steps > 0
        assert count_steps([stays, other]) == 14 - steps
        left.timeline.abandoned_at = None
        take_steps(batcher, 10)
        assert left.images[0].step_count == pytest.approx(steps + 5, abs=1)


def test_a_newcomer_gets_no_credit_from_abandoned_work(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tenant is far behind, which must not be where others start."""
    batcher = make_batcher()
    with timed(model, monkeypatch):
        add(batcher, model, A, num_inference_steps=90).timeline.abandoned_at = 0.0
        busy = add(batcher, model, B, num_inference_steps=90)
        take_steps(batcher, 30)
        newcomer = add(batcher, model, Tenant("c"), num_inference_steps=90)
        take_steps(batcher, 10)
    assert busy.images[0].step_count == pytest.approx(35, abs=1)
    assert newcomer.images[0].step_count == pytest.approx(5, abs=1)


def test_the_forecast_knows_the_shares(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = make_batcher()
    with timed(model, monkeypatch):
        take_all = [add(batcher, model, A, num_inference_steps=10) for _ in range(20)]
        take_steps(batcher, 5)
        small = add(batcher, model, B, num_inference_steps=5)
        take_steps(batcher, 1)
        batcher.look_ahead()
        assert small.expected_s(6.0) == pytest.approx(10, abs=2)
        assert take_all[-1].expected_s(6.0) == pytest.approx(200, abs=2)


@pytest.mark.parametrize("joins", [False, True])
def test_work_that_can_no_longer_finish_in_time_ends_early(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch, joins: bool
) -> None:
    """The device has become slower; another watcher may have more time."""
    batcher, recorder = make_batcher(), Recorder()
    forward_s = 1.0
    with timed(model, monkeypatch, forward_s=lambda: forward_s, decode_s=1.0):
        add(batcher, model, A, num_inference_steps=2)
        take_steps(batcher)
        job = make_job(model, recorder, num_inference_steps=20, deadline_s=25.0)
        batcher.add(job)
        if joins:
            job.timeline.joined_at = 1.0
        forward_s = 3.0
        while batcher.jobs:
            take_steps(batcher, 1)
            batcher.look_ahead()
    if joins:
        assert images_of(recorder.events)
    else:
        assert isinstance(recorder.error, DeadlineError)
        assert "but the images need about" in str(recorder.error)
        assert job.images[0].step_count < 8  # the deadline would have come after 8


@pytest.fixture
def merging(tiny_models: TinyModels) -> LoadedModel:
    """FLUX.1-dev with up to eight images in a forward."""
    return reload(tiny_models["flux-dev"].adapter.pipeline, BatchingSettings(max_width=8))


def add_eight(batcher: StepBatcher, model: LoadedModel, deadline_s: float) -> list[Recorder]:
    """Add eight equal jobs of ten steps with the same deadline."""
    recorders = [Recorder() for _ in range(8)]
    for each in recorders:
        batcher.add(make_job(model, each, num_inference_steps=10, tenant=A, deadline_s=deadline_s))
    return recorders


def test_new_jobs_that_are_late_because_of_each_other_do_not_all_end(
    merging: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight in a forward would take 80 seconds each, and four take 40."""
    batcher = make_batcher()
    with timed(merging, monkeypatch, forward_s=0.0, row_s=1.0):
        add(batcher, merging, A, num_inference_steps=2)
        take_steps(batcher)
        recorders = add_eight(batcher, merging, deadline_s=50.0)
        take_steps(batcher)
    assert [bool(images_of(each.events)) for each in recorders] == [True] * 4 + [False] * 4


def test_waiting_jobs_that_are_late_because_of_each_other_do_not_all_end(
    merging: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job before them has become slower, so that four of them are in time, but not eight."""
    batcher = make_batcher()
    forward_s = 0.0
    with timed(merging, monkeypatch, forward_s=lambda: forward_s, row_s=1.0):
        for height in (64, 96):
            add(batcher, merging, A, num_inference_steps=2, height=height)
            take_steps(batcher)
        add(batcher, merging, A, num_inference_steps=30, height=64)
        take_steps(batcher, 1)
        recorders = add_eight(batcher, merging, deadline_s=115.0)
        take_steps(batcher, 1)
        assert len(batcher.jobs) == 9
        forward_s = 1.0
        while batcher.jobs:
            take_steps(batcher, 1)
            batcher.look_ahead()
    assert [bool(images_of(each.events)) for each in recorders] == [True] * 4 + [False] * 4


def test_a_waiting_job_ends_when_its_forecast_exceeds_its_deadline(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher, recorder = make_batcher(), Recorder()
    with timed(model, monkeypatch):
        add(batcher, model, A, num_inference_steps=2)
        take_steps(batcher)
        add(batcher, model, A, num_inference_steps=9)
        late = make_job(model, recorder, num_inference_steps=9, tenant=A, deadline_s=20.0)
        batcher.add(late)
        take_steps(batcher, 2)
        batcher.look_ahead()
        assert late in batcher.jobs
        for number in range(3):
            add(batcher, model, Tenant(str(number)), num_inference_steps=40)
        take_steps(batcher, 1)
        batcher.look_ahead()
        take_steps(batcher, 1)
    assert isinstance(recorder.error, DeadlineError)
    assert not late.is_started
