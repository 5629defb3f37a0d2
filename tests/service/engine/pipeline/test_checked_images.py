"""Checked images: the safety check runs in batches, and only flagged images turn black."""

from typing import Any

import numpy as np
import pytest
import torch

from safelight_service.core.errors import InternalError
from safelight_service.core.events import Image
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.pipeline.safety_check import Verdicts
from support.engine.job_runs import (
    Recorder,
    difference,
    draw,
    images_of,
    make_batcher,
    make_job,
    pixels_of,
    run_jobs,
    take_steps,
)
from support.engine.simulated_gpu import move, simulate_gpu
from support.engine.tiny_models import reload
from support.pipelines.families import make_pipeline
from support.pipelines.safety_checkers import make_checked_pipeline

SEEDS = range(4)


def set_thresholds(model: LoadedModel, threshold: float) -> None:
    assert model.safety_checker is not None
    model.safety_checker.thresholds.fill_(threshold)
    model.safety_checker.special_thresholds.fill_(1.0)


def make_images(model: LoadedModel) -> list[Image]:
    recorders = [Recorder() for _ in SEEDS]
    jobs = [make_job(model, each, seed=seed) for seed, each in zip(SEEDS, recorders, strict=True)]
    run_jobs(*jobs)
    return [images_of(recorder.events)[0] for recorder in recorders]


@pytest.fixture
def model() -> LoadedModel:
    return reload(make_checked_pipeline())


def test_images_that_end_together_are_checked_together(model: LoadedModel) -> None:
    set_thresholds(model, 1.0)
    batches: list[int] = []
    vision_model = model.adapter.pipeline.safety_checker.vision_model
    vision_model.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    images = make_images(model)
    assert batches == [len(SEEDS)]
    plain = reload(make_pipeline("sd15"))
    for seed, image in zip(SEEDS, images, strict=True):
        assert not image.is_flagged
        assert difference(pixels_of(image), draw(plain, seed=seed)) <= 1


def test_flagged_images_are_black(model: LoadedModel) -> None:
    set_thresholds(model, -1.0)
    for image in make_images(model):
        assert image.is_flagged
        assert not np.frombuffer(pixels_of(image), np.uint8).any()


def test_each_image_has_a_flag_of_its_own(model: LoadedModel) -> None:
    checker: Any = model.safety_checker
    with pytest.MonkeyPatch.context() as patch:
        verdicts = Verdicts(torch.tensor([True, False, True, False]), torch.ones(4).bool())
        patch.setattr(checker, "check", lambda images: verdicts)
        images = make_images(model)
    assert [image.is_flagged for image in images] == [True, False, True, False]
    assert [bool(any(pixels_of(image))) for image in images] == [False, True, False, True]


def test_an_image_that_cannot_be_checked_fails_alone(model: LoadedModel) -> None:
    set_thresholds(model, 1.0)
    checker: Any = model.safety_checker
    check = checker.check
    calls: list[int] = []

    def fail_on_the_second_alone(images: torch.Tensor) -> Verdicts:
        calls.append(len(images))
        if len(images) > 1 or len(calls) == 3:
            raise ValueError("for a test")
        verdicts: Verdicts = check(images)
        return verdicts

    recorders = [Recorder() for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checker, "check", fail_on_the_second_alone)
        run_jobs(*(make_job(model, each, seed=seed) for seed, each in enumerate(recorders)))
    assert calls == [3, 1, 1, 1]
    assert [type(each.error) for each in recorders] == [type(None), InternalError, type(None)]


def test_a_check_waits_for_nothing_but_its_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make_checked_pipeline()
    move(pipeline)
    with simulate_gpu(monkeypatch) as gpu:
        model = reload(pipeline)
        gpu.waits.clear()
        recorder, batcher = Recorder(), make_batcher()
        batcher.add(make_job(model, recorder))
        take_steps(batcher)
        assert images_of(recorder.events)
        # The pixels with the flag, in the thread that encodes the image.
        assert dict(gpu.kinds) == {"device to host": 1}
