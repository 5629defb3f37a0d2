"""Demand of a step: known from the scheduler before any image has ended."""

from typing import Any

import pytest

from safelight_service.engine.batching.policy import SHORTEST_REMAINING
from safelight_service.settings import BatchingSettings
from support.engine.fake_costs import timed
from support.engine.job_runs import Recorder, make_batcher, make_job, take_steps
from support.engine.tiny_models import TinyModels, reload

STEPS = 10
ALONE = BatchingSettings(max_width=1)
FORWARDS: list[Any] = [
    pytest.param("sd15", {"scheduler": "pndm"}, 11, id="pndm repeats a step"),
    pytest.param("sd15", {"scheduler": "heun"}, 19, id="heun has two calls but in the last step"),
    pytest.param("flux-schnell", {"guidance_scale": 3.0}, 20, id="guidance has its own forwards"),
]
"""Forwards of an image of STEPS steps."""


@pytest.mark.parametrize(("family", "parameters", "forward_count"), FORWARDS)
def test_forwards_are_known_from_the_first_step_on(
    tiny_models: TinyModels, family: str, parameters: dict[str, Any], forward_count: int
) -> None:
    model = reload(tiny_models[family].adapter.pipeline, ALONE)
    job = make_job(model, Recorder(), num_inference_steps=STEPS, **parameters)
    batcher = make_batcher()
    batcher.add(job)
    while job.images[0].step_count < 1:
        take_steps(batcher, 1)
    demand = job.images[0].demand
    assert demand.forwards_per_step == pytest.approx(forward_count / STEPS)
    assert job.cost_model.demand(is_guided=job.is_guided) == demand
    take_steps(batcher)
    assert job.images[0].widths.total() == forward_count
    assert job.images[0].demand == demand


@pytest.mark.parametrize("taken_count", [2, 3])
@pytest.mark.parametrize(("family", "parameters", "forward_count"), FORWARDS)
def test_an_equal_newcomer_does_not_overtake(
    tiny_models: TinyModels,
    family: str,
    parameters: dict[str, Any],
    forward_count: int,
    taken_count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = reload(tiny_models[family].adapter.pipeline, ALONE)
    batcher = make_batcher(SHORTEST_REMAINING)
    with timed(model, monkeypatch):
        first = make_job(model, Recorder(), num_inference_steps=STEPS, **parameters)
        batcher.add(first)
        take_steps(batcher, taken_count)
        second = make_job(model, Recorder(), num_inference_steps=STEPS, **parameters)
        batcher.add(second)
        while first in batcher.jobs:
            assert not second.widths
            take_steps(batcher, 1)


def test_reused_steps_do_not_count(tiny_models: TinyModels) -> None:
    model = reload(tiny_models["flux-dev"].adapter.pipeline, ALONE)
    job = make_job(model, Recorder(), num_inference_steps=STEPS, step_reuse=0.5)
    batcher = make_batcher()
    batcher.add(job)
    while batcher.jobs:
        take_steps(batcher, 1)
        if job.images[0].step_count:
            assert job.images[0].demand.forwards_per_step == 1
    assert 0 < job.images[0].widths.total() < STEPS
