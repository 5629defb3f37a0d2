"""Denoising: observes the steps of an unmodified pipeline by wrapping its scheduler's `step`.

The callback arguments of pipelines would not do: some lack them, and others ignore them.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from safelight_service.engine.sampling.predict_x0 import predict_clean


@dataclass(frozen=True, slots=True)
class Step:
    """A completed step; `number` counts from 1."""

    number: int
    predict_clean: Callable[[], torch.Tensor]
    """Predicts the clean latents, in the pipeline's own layout."""


def count_calls(scheduler: Any, step_count: int) -> int:
    """Return the calls of `step` that `step_count` steps take, once its timesteps are set.

    Second-order schedulers need two calls for most steps, and PNDM one call in addition.
    """
    return max(len(scheduler.timesteps), step_count)


def observe_steps(
    scheduler: Any,
    step_count: int,
    generator: torch.Generator,
    on_step: Callable[[Step], None],
    on_prediction: Callable[[torch.Tensor], None],
) -> None:
    """Call `on_step` after each of the `step_count` steps of a scheduler.

    Calls `on_prediction` with every prediction of the denoiser, before it is used.

    Steps that add noise draw it from `generator`. Pipelines of flow-matching models pass none, so
    their pictures would depend on more than the seed.

    Timesteps are moved to the host first: many schedulers read them several times a step, and
    would wait for the device each time.

    Steps are counted in proportion to the calls.
    """
    make_step = scheduler.step
    takes_generator = "generator" in inspect.signature(make_step).parameters
    call_count = 0
    uses_own_timesteps = False

    @functools.wraps(make_step)  # pipelines inspect the signature
    def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal call_count, uses_own_timesteps
        if call_count == 0:
            first = scheduler.timesteps[0]
            uses_own_timesteps = torch.equal(first, torch.as_tensor(timestep, device=first.device))
            if uses_own_timesteps:
                scheduler.timesteps = scheduler.timesteps.cpu()
        if uses_own_timesteps and call_count < len(scheduler.timesteps):
            timestep = scheduler.timesteps[call_count]
        on_prediction(model_output)
        if takes_generator:
            kwargs.setdefault("generator", generator)
        result = make_step(model_output, timestep, sample, *args, **kwargs)
        call_count += 1
        call_total = count_calls(scheduler, step_count)
        number = call_count * step_count // call_total
        if number > (call_count - 1) * step_count // call_total:
            outputs = result if isinstance(result, tuple) else tuple(result.values())
            predict = functools.partial(
                predict_clean, scheduler, outputs, model_output, timestep, sample
            )
            on_step(Step(number, predict))
        return result

    scheduler.step = step
