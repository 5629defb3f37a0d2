"""Predictions of clean latents, with a denoiser that knows them, for every scheduler."""

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from safelight_service.engine.sampling.predict_x0 import predict_clean
from safelight_service.engine.sampling.schedulers import SchedulerChoice
from support.engine.crossings import Crossings

STEP_COUNT = 6
FLOW = FlowMatchEulerDiscreteScheduler(shift=3.0)
FLOW_SOLVER = DPMSolverMultistepScheduler(
    flow_shift=3.0, prediction_type="flow_prediction", use_flow_sigmas=True
)


def noise_schedule(prediction_type: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction_type,
        timestep_spacing="trailing",
    )


def aliases_of(own: Any) -> list[str]:
    infos = SchedulerChoice(own).list()
    return [alias for info in infos for alias in info.aliases]


def predictions(own: Any, alias: str, denoise: Any, clean: torch.Tensor) -> list[torch.Tensor]:
    """Predict the clean latents at each of the scheduler's calls."""
    scheduler: Any = SchedulerChoice(own).make(alias)
    scheduler.set_timesteps(STEP_COUNT)
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(clean.shape, generator=generator)
    sample *= getattr(scheduler, "init_noise_sigma", 1.0)
    predicted = []
    for index, timestep in enumerate(scheduler.timesteps):
        output = denoise(scheduler, sample, timestep, index)
        outputs = scheduler.step(output, timestep, sample, return_dict=False)
        predicted.append(predict_clean(scheduler, outputs, output, timestep, sample))
        sample = outputs[0]
    return predicted


@pytest.fixture
def clean() -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


# Karras sigmas lie between the integer timesteps passed to the denoiser.
@pytest.mark.parametrize(
    "alias", [alias for alias in aliases_of(noise_schedule("epsilon")) if "karras" not in alias]
)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_clean_latents_are_those_of_an_exact_denoiser(
    clean: torch.Tensor, prediction_type: str, alias: str
) -> None:
    own: Any = noise_schedule(prediction_type)

    def denoise(
        scheduler: Any, sample: torch.Tensor, timestep: torch.Tensor, _: int
    ) -> torch.Tensor:
        noised = scheduler.scale_model_input(sample, timestep)
        signal, noise = find_levels(own, float(timestep))
        epsilon: torch.Tensor = (noised - signal * clean) / noise
        return epsilon if prediction_type == "epsilon" else signal * epsilon - noise * clean

    for predicted in predictions(own, alias, denoise, clean):
        torch.testing.assert_close(predicted, clean, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("own", "alias"),
    [(own, alias) for own in (FLOW, FLOW_SOLVER) for alias in aliases_of(own)],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_clean_latents_are_those_of_an_exact_flow(
    clean: torch.Tensor, own: Any, alias: str
) -> None:
    def denoise(scheduler: Any, sample: torch.Tensor, _: torch.Tensor, index: int) -> torch.Tensor:
        sigma: torch.Tensor = scheduler.sigmas[index]
        return (sample - clean) / sigma

    for predicted in predictions(own, alias, denoise, clean):
        torch.testing.assert_close(predicted, clean, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("own", "alias"),
    [
        pytest.param(own, alias, id=f"{kind}-{alias}")
        for kind, own in (
            ("epsilon", noise_schedule("epsilon")),
            ("v", noise_schedule("v_prediction")),
            ("flow", FLOW),
            ("flow solver", FLOW_SOLVER),
        )
        for alias in aliases_of(own)
    ],
)
def test_a_prediction_takes_nothing_to_the_device_and_nothing_from_it(own: Any, alias: str) -> None:
    choice = SchedulerChoice(own)
    scheduler: Any = choice.make(alias)
    near: Any = choice.make(alias)
    scheduler.set_timesteps(STEP_COUNT, device="meta")
    near.set_timesteps(STEP_COUNT)
    scheduler.timesteps = near.timesteps  # as denoising.py does
    timestep = scheduler.timesteps[0]
    output = sample = torch.empty(1, 4, 8, 8, device="meta")
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(sample, timestep)
    outputs = scheduler.step(output, timestep, sample, return_dict=False)
    with Crossings() as crossings:
        predicted = predict_clean(scheduler, outputs, output, timestep, sample)
    assert predicted.device.type == "meta"
    assert crossings.shapes == []


def find_levels(own: Any, timestep: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the shares of signal and noise, interpolated between timesteps by the logarithm."""
    log_sigmas = ((1 - own.alphas_cumprod) / own.alphas_cumprod).sqrt().log()
    below = min(int(timestep), len(log_sigmas) - 2)
    sigma = torch.lerp(log_sigmas[below], log_sigmas[below + 1], timestep - below).exp()
    signal = (1 + sigma**2).rsqrt()
    return signal, sigma * signal
