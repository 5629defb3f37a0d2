"""Predicted x0: the clean latents that a model predicts at a step."""

from typing import Any

import torch


def predict_clean(
    scheduler: Any,
    outputs: tuple[torch.Tensor, ...],
    model_output: torch.Tensor,
    timestep: torch.Tensor | float,
    sample: torch.Tensor,
) -> torch.Tensor:
    """Return the clean latents predicted by the step that has just been completed.

    `outputs` is the result of `scheduler.step(model_output, timestep, sample)` as a tuple. Latents
    keep the pipeline's own layout and normalisation. If a scheduler allows no prediction, returns
    the partly denoised sample.

    The noise level is on the host; if `timestep` is too, nothing waits for the latents' device.
    """
    if type(scheduler).__name__.startswith("FlowMatch"):
        return sample.float() - _sigma_of_step(scheduler) * model_output.float()
    if hasattr(scheduler, "alphas_cumprod") and not hasattr(scheduler, "sigmas"):
        alpha = scheduler.alphas_cumprod[int(timestep)]
        return _remove_noise(scheduler, model_output, sample, alpha.sqrt(), (1 - alpha).sqrt())
    if len(outputs) > 1:
        return outputs[1]  # Euler, Heun, KDPM2 and LMS return it
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):  # DPM-Solver, DEIS and UniPC
        signal, noise = scheduler._sigma_to_alpha_sigma_t(_sigma_of_step(scheduler))
        return _remove_noise(scheduler, model_output, sample, signal, noise)
    return outputs[0]


def _sigma_of_step(scheduler: Any) -> torch.Tensor:
    sigma: torch.Tensor = scheduler.sigmas[scheduler.step_index - 1]
    return sigma


def _remove_noise(
    scheduler: Any,
    model_output: torch.Tensor,
    sample: torch.Tensor,
    signal: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """Solve x = signal x0 + noise e for x0 (e: Ho et al. 2020; v: Salimans & Ho 2022)."""
    match scheduler.config.prediction_type:
        case "epsilon":
            return (sample - noise * model_output) / signal.clamp(min=1e-3)
        case "v_prediction":
            return signal * sample - noise * model_output
        case "flow_prediction":  # signal is 1 - noise, and the flow is e - x0
            return sample - noise * model_output
        case _:
            return model_output
