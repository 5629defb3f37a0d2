"""Step reuse in the engine: saved forwards, images beside others, and forecasts."""

from typing import Any

import numpy as np
import pytest

from safelight_service.core.errors import InvalidRequestError
from safelight_service.core.events import Image, Progress
from safelight_service.engine.job import Job
from safelight_service.engine.models.loading import load_model
from safelight_service.engine.sampling.reuse import choose_steps
from safelight_service.settings import BatchingSettings, DefaultSettings, LimitSettings
from support.engine.job_runs import (
    Recorder,
    difference,
    images_of,
    make_batcher,
    make_job,
    pixels_of,
    run_job,
    run_jobs,
    take_steps,
)
from support.engine.tiny_models import TinyModels

STEPS, SHARE = 12, 0.4
REUSED = len(choose_steps(STEPS, SHARE))


def run(job: Job) -> Job:
    run_jobs(job)
    return job


def saved_forwards(job: Job) -> int:
    return sum(image.reuse.forward_count for image in job.images)


@pytest.mark.parametrize(
    ("family", "scheduler", "forwards_per_step"),
    [
        ("sd15", "ddim", 1),  # guidance in one forward of two rows
        ("sd15", "euler_a", 1),
        ("qwen-image", None, 2),  # guidance in two forwards
        ("flux-dev", None, 1),
        ("z-image", None, 1),  # outputs are lists
    ],
)
def test_reused_steps_run_no_forwards(
    tiny_models: TinyModels, family: str, scheduler: str | None, forwards_per_step: int
) -> None:
    model = tiny_models[family]
    recorder = Recorder()
    job = run(
        make_job(model, recorder, num_inference_steps=STEPS, scheduler=scheduler, step_reuse=SHARE)
    )
    assert recorder.error is None
    assert saved_forwards(job) == REUSED * forwards_per_step
    assert job.widths.total() == (STEPS - REUSED) * forwards_per_step
    progress = [event.step for event in recorder.events if isinstance(event, Progress)]
    assert progress == list(range(1, STEPS + 1))
    assert len(images_of(recorder.events)) == 1


def test_a_second_order_scheduler_reuses_both_forwards_of_a_step(tiny_models: TinyModels) -> None:
    job = run(
        make_job(
            tiny_models["sd15"],
            Recorder(),
            num_inference_steps=STEPS,
            scheduler="heun",
            step_reuse=SHARE,
        )
    )
    assert saved_forwards(job) == 2 * REUSED
    assert job.widths.total() + saved_forwards(job) == 2 * STEPS - 1


def picture(model: Any, **request: Any) -> Image:
    [image] = images_of(run_job(model, num_inference_steps=STEPS, **request))
    return image


def test_an_image_with_reuse_is_the_same_beside_others(tiny_models: TinyModels) -> None:
    model = tiny_models["flux-dev"]
    alone = {share: picture(model, step_reuse=share, seed=3) for share in (0.0, 0.25, SHARE)}
    recorders = {share: Recorder() for share in alone}
    run_jobs(
        *(
            make_job(model, recorder, num_inference_steps=STEPS, step_reuse=share, seed=3)
            for share, recorder in recorders.items()
        )
    )
    for share, recorder in recorders.items():
        [image] = images_of(recorder.events)
        assert difference(pixels_of(image), pixels_of(alone[share])) <= 1
    assert picture(model, seed=3).data == alone[0.0].data


def test_the_image_is_near_that_of_all_steps(tiny_models: TinyModels) -> None:
    """A tiny denoiser is as smooth as a large one: two seeds differ far more."""
    model = tiny_models["sd15"]
    full, reused, other = (
        picture(model, seed=3),
        picture(model, seed=3, step_reuse=0.25),
        picture(model, seed=4),
    )
    assert 0 < mean_difference(full, reused) < mean_difference(full, other) / 10


def mean_difference(one: Image, other: Image) -> float:
    levels = [np.frombuffer(pixels_of(image), np.uint8).astype(float) for image in (one, other)]
    return float(np.abs(levels[0] - levels[1]).mean())


def test_estimates_count_computed_steps_alone(tiny_models: TinyModels) -> None:
    batcher = make_batcher()
    job = make_job(tiny_models["flux-dev"], Recorder(), num_inference_steps=STEPS, step_reuse=SHARE)
    batcher.add(job)
    [image] = job.images
    assert image.computed_steps_left == STEPS - REUSED
    take_steps(batcher)
    assert image.computed_steps_left == 0
    assert image.demand.forwards_per_step == 1


@pytest.mark.parametrize("share", [-0.1, 0.61, float("nan")])
def test_shares_beyond_the_limit_are_refused(tiny_models: TinyModels, share: float) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        make_job(tiny_models["flux-dev"], Recorder(), step_reuse=share)
    [violation] = caught.value.violations
    assert violation.field == "parameters.step_reuse"
    assert "from 0 to 0.6" in violation.description


def test_the_deterministic_mode_has_no_reuse(tiny_models: TinyModels) -> None:
    settings = tiny_models.settings("flux-dev")
    model = load_model(settings, BatchingSettings(deterministic=True))
    assert "step_reuse" not in model.capabilities.supported_parameters
    assert model.capabilities.limits.max_step_reuse == 0
    assert model.capabilities.defaults.step_reuse is None
    with pytest.raises(InvalidRequestError, match="step_reuse"):
        make_job(model, Recorder(), step_reuse=0.2)


def test_a_model_has_its_own_default_and_limit(tiny_models: TinyModels) -> None:
    settings = tiny_models.settings("flux-dev").model_copy(
        update={
            "defaults": DefaultSettings(step_reuse=0.25),
            "limits": LimitSettings(max_step_reuse=0.3),
        }
    )
    model = load_model(settings)
    job = make_job(model, Recorder(), num_inference_steps=STEPS)
    assert job.request.parameters.step_reuse == 0.25
    assert job.images[0].reuse.steps == choose_steps(STEPS, 0.25)
    with pytest.raises(InvalidRequestError, match="step_reuse"):
        make_job(model, Recorder(), step_reuse=0.31)
