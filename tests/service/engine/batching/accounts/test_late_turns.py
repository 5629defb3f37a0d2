"""The order by remaining work: late jobs, which wait no longer than a bound, and riders."""

from typing import Any

import pytest

from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.engine.batching.accounts.late_turns import SHARE
from safelight_service.engine.batching.estimates.cost_model import CostModel
from safelight_service.engine.batching.policy import (
    FIRST_COME,
    PATIENCE,
    SHORTEST_REMAINING,
    Place,
    rank_by_arrival,
    rank_by_remaining,
)
from safelight_service.engine.batching.sharing import Seats
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.engine.job import Job
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.operations import Forward
from safelight_service.settings import BatchingSettings
from support.engine.fake_costs import timed
from support.engine.job_runs import Recorder, make_batcher, make_job, take_steps
from support.engine.tiny_models import MERGING, TinyModels, reload

ALONE = BatchingSettings(max_width=1)
LARGE, SMALL = 5, 2
"""Steps, which take a second each."""


@pytest.fixture
def model(tiny_models: TinyModels) -> LoadedModel:
    """FLUX.1-dev with one image in a forward."""
    return reload(tiny_models["flux-dev"].adapter.pipeline, ALONE)


def add(
    batcher: StepBatcher, model: LoadedModel, steps: int, tenant: Tenant = NO_TENANT, **request: Any
) -> Job:
    job = make_job(model, Recorder(), tenant=tenant, num_inference_steps=steps, **request)
    batcher.add(job)
    return job


def measure(batcher: StepBatcher, model: LoadedModel) -> None:
    """Run a job, so that the costs are known; it takes three seconds."""
    add(batcher, model, 3)
    take_steps(batcher)


def flood(
    batcher: StepBatcher, model: LoadedModel, seconds: int, until: Job
) -> tuple[list[Job], int]:
    """Add a small job every two seconds, all that the device can do, until a job has ended.

    Returns all small jobs, and the seconds until then, at most `seconds`.
    """
    small: list[Job] = []
    while until in batcher.jobs and SMALL * len(small) < seconds:
        small.append(add(batcher, model, SMALL))
        take_steps(batcher, SMALL)
    return small, SMALL * len(small)


def test_a_large_job_waits_no_longer_than_its_share_allows(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is late after twice its seconds, and then gets its SHARE of the device."""
    batcher = make_batcher(SHORTEST_REMAINING)
    bound_s = (PATIENCE - 1) * LARGE + LARGE / SHARE
    with timed(model, monkeypatch):
        measure(batcher, model)
        large = add(batcher, model, LARGE)
        small, ended_s = flood(batcher, model, 150, large)
    assert ended_s <= bound_s + SMALL
    assert ended_s > PATIENCE * LARGE  # others came first
    waiting = sum(job in batcher.jobs for job in small)
    assert waiting == pytest.approx(LARGE / SMALL, abs=2)  # the large job's time, and no more


def test_late_jobs_end_one_after_another_by_arrival(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = make_batcher(SHORTEST_REMAINING)
    with timed(model, monkeypatch):
        measure(batcher, model)
        first, second = add(batcher, model, 3), add(batcher, model, 2)
        for job in first, second:
            job.arrived_at -= 9.0  # both are late
        _, first_s = flood(batcher, model, 60, first)
        assert second in batcher.jobs
        _, further_s = flood(batcher, model, 60, second)
    assert first_s <= 3 / SHARE + SMALL
    assert further_s <= 2 / SHARE + SMALL


def test_late_jobs_take_nothing_from_other_tenants(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Tenant("one"), Tenant("other")
    batcher = make_batcher(SHORTEST_REMAINING)
    with timed(model, monkeypatch):
        measure(batcher, model)
        late = [add(batcher, model, 4, one) for _ in range(8)]
        busy = add(batcher, model, 60, other)
        for _ in range(12):  # the first jobs are late by now
            late.append(add(batcher, model, 1, one))
            take_steps(batcher, 3)
        steps = sum(image.step_count for job in late for image in job.images)
    assert busy.images[0].step_count == pytest.approx(18, abs=1)
    assert steps == pytest.approx(18, abs=1)


def test_late_jobs_have_an_idle_device_for_themselves(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its time earns others no credit: they are as punctual afterwards."""
    batcher = make_batcher(SHORTEST_REMAINING)
    with timed(model, monkeypatch):
        measure(batcher, model)
        late = [add(batcher, model, LARGE) for _ in range(5)]
        take_steps(batcher, 4 * LARGE + 2)
        assert [job in batcher.jobs for job in late] == [False] * 4 + [True]
        small = add(batcher, model, 2)
        take_steps(batcher, 3)
    assert small not in batcher.jobs
    assert late[-1] in batcher.jobs


@pytest.mark.parametrize(
    ("steps", "waited_s", "place"),
    [
        (2, 0.0, Place(False, 2.0)),
        (2, 4.0, Place(False, 2.0)),
        (2, 4.1, Place(True, 3.0)),
        (20, 4.1, Place(False, 20.0)),
        (20, 40.1, Place(True, 3.0)),
    ],
)
def test_a_job_is_late_when_it_can_no_longer_end_in_three_times_its_own_time(
    model: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    waited_s: float,
    place: Place,
) -> None:
    batcher = make_batcher(SHORTEST_REMAINING)
    with timed(model, monkeypatch):
        measure(batcher, model)
        job = add(batcher, model, steps)
        assert rank_by_remaining(job, job.arrived_at + waited_s) == place
        assert rank_by_arrival(job, job.arrived_at + waited_s) == (False, job.arrived_at)


def test_remaining_time_counts_starts_decodes_and_shared_forwards(
    tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    merging = reload(tiny_models["flux-dev"].adapter.pipeline, MERGING)
    batcher = make_batcher(SHORTEST_REMAINING)
    costs = {"text_s": 5.0, "forward_s": 2.0, "row_s": 1.0, "decode_s": 7.0}
    with timed(merging, monkeypatch, **costs):
        add(batcher, merging, 2, inputs="a picture of its own")
        take_steps(batcher)
        one, three = add(batcher, merging, 4), add(batcher, merging, 4, image_count=3)
        assert rank_by_remaining(one, 0.0).seconds == 5 + 4 * 3 + 7
        # one forward of three rows has not been measured, and counts as three of one
        assert rank_by_remaining(three, 0.0).seconds == 3 * 5 + 4 * 9 + 3 * 7


@pytest.mark.parametrize(
    ("steps_left", "rider_steps_left", "seconds_factor", "rides"),
    [
        (9, 9, 2.0, True),  # twice as many in twice the time
        (9, 9, 2.3, False),
        (9, 89, 1.15, True),
        (9, 89, 1.3, False),
        (89, 9, 5.0, True),
    ],
)
def test_an_image_rides_along_unless_it_delays_those_that_end_before_it(
    steps_left: int, rider_steps_left: int, seconds_factor: float, rides: bool
) -> None:
    cost_model = CostModel((64, 64), None)
    for _ in range(5):
        cost_model.note_forward(1, 1.0)
        cost_model.note_forward(2, seconds_factor)
    forward = Forward({}, 1, "key")
    for policy, expected in (SHORTEST_REMAINING, rides), (FIRST_COME, True):
        seats = Seats(policy)
        rate, rider_rate = 1 / (steps_left + 1), 1 / (rider_steps_left + 1)
        assert seats.is_worth(cost_model, 1, rate)
        seats.take(forward, rate)
        assert seats.is_worth(cost_model, 1, rider_rate) == expected


@pytest.mark.parametrize(("seconds_factor", "rides"), [(1.05, True), (1.3, False)])
def test_a_late_image_rides_along_only_where_it_delays_nobody(
    seconds_factor: float, rides: bool
) -> None:
    cost_model = CostModel((64, 64), None)
    for _ in range(5):
        cost_model.note_forward(1, 1.0)
        cost_model.note_forward(2, seconds_factor)
    seats = Seats(SHORTEST_REMAINING)
    seats.take(Forward({}, 1, "key"), 1 / 10)
    assert seats.is_worth(cost_model, 1, 0.0) == rides


def test_all_images_join_a_late_one_that_leads() -> None:
    cost_model = CostModel((64, 64), None)
    for _ in range(5):
        cost_model.note_forward(1, 1.0)
        cost_model.note_forward(2, 9.0)
    seats = Seats(SHORTEST_REMAINING)
    seats.take(Forward({}, 1, "key"), 0.0)
    assert seats.is_worth(cost_model, 1, 1 / 10)
    assert seats.is_worth(cost_model, 1, 0.0)


def test_an_image_rides_along_until_the_width_has_been_measured() -> None:
    """Otherwise one slow forward would forbid a width for ever."""
    cost_model = CostModel((64, 64), None)
    for _ in range(5):
        cost_model.note_forward(1, 1.0)
    for count in range(4):
        cost_model.note_forward(2, 9.0)
        seats = Seats(SHORTEST_REMAINING)
        seats.take(Forward({}, 1, "key"), 1 / 10)
        assert seats.is_worth(cost_model, 1, 1 / 10) == (count < 3)
