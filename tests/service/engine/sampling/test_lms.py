from typing import Any

import pytest
import torch

from safelight_service.engine.sampling.lms import LmsCoefficients


class Scheduler:
    """The part of LMSDiscreteScheduler that works without scipy."""

    def __init__(self, levels: list[float]) -> None:
        self.sigmas = torch.tensor(levels)
        self.asked: list[tuple[int, int, int]] = []

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        self.asked.append((order, t, current_order))
        window = self.sigmas[t - order + 1 : t + 2]
        return float(window.sum()) + current_order


def coefficients_of(scheduler: Any) -> list[float]:
    return [
        scheduler.get_lms_coefficient(order, t, current)
        for t in range(len(scheduler.sigmas) - 1)
        for order in [min(t + 1, 4)]
        for current in range(order)
    ]


def test_coefficients_are_integrated_once_for_equal_schedules() -> None:
    levels = [9.0, 5.0, 3.0, 2.0, 1.0, 0.0]
    known = LmsCoefficients()
    first, second = Scheduler(levels), Scheduler(levels)
    expected = coefficients_of(Scheduler(levels))
    for scheduler in (first, second):
        known.attach(scheduler)
        assert coefficients_of(scheduler) == expected
    assert len(first.asked) == 14
    assert second.asked == []


def test_other_noise_levels_have_other_coefficients() -> None:
    known = LmsCoefficients()
    for levels in ([9.0, 5.0, 3.0, 2.0, 0.0], [9.0, 5.0, 2.5, 2.0, 0.0]):
        scheduler = Scheduler(levels)
        known.attach(scheduler)
        assert coefficients_of(scheduler) == coefficients_of(Scheduler(levels))


def test_schedules_of_diffusers_keep_their_latents() -> None:
    pytest.importorskip("scipy", reason="LMS needs it, and it is no part of the set-up")
    from diffusers import LMSDiscreteScheduler

    def make_steps(scheduler: Any) -> torch.Tensor:
        scheduler.set_timesteps(20)
        sample = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        for timestep in scheduler.timesteps:
            output = scheduler.scale_model_input(sample, timestep).sin()
            sample = scheduler.step(output, timestep, sample).prev_sample
        return sample

    expected = make_steps(LMSDiscreteScheduler())
    known = LmsCoefficients()
    for _ in range(2):
        scheduler = LMSDiscreteScheduler()
        known.attach(scheduler)
        assert make_steps(scheduler).equal(expected)
