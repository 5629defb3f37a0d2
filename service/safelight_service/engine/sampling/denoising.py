"""Denoising as seen from outside an unmodified pipeline.

Its scheduler's `step` is wrapped to see every step; no callback argument is needed, which
some pipelines lack and others ignore.
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
    """A step that has been made, from 1 to `step_count`."""

    number: int
    predict_clean: Callable[[], torch.Tensor]
    """Predicts the clean latents, in the pipeline's own layout."""


def observe_steps(
    scheduler: Any, step_count: int, generator: torch.Generator, on_step: Callable[[Step], None]
) -> None:
    """Have `on_step` called after each of the scheduler's `step_count` steps.

    Steps that add noise take it from `generator`: pipelines of flow-matching models hand none
    over, and then their pictures would not depend on the seed alone.

    Timesteps are brought to the host first: many schedulers read their values several times a
    step, and would wait each time for all that the device has been given.

    Second-order schedulers take two calls for most steps, and PNDM one more than
    it was asked for, so steps are counted in proportion to the calls.
    """
    make_step = scheduler.step
    takes_generator = "generator" in inspect.signature(make_step).parameters
    call_count = 0
    is_told_its_own = False

    @functools.wraps(make_step)  # pipelines inspect the signature
    def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal call_count, is_told_its_own
        if call_count == 0:
            first = scheduler.timesteps[0]
            is_told_its_own = torch.equal(first, torch.as_tensor(timestep, device=first.device))
            if is_told_its_own:
                scheduler.timesteps = scheduler.timesteps.cpu()
        if is_told_its_own and call_count < len(scheduler.timesteps):
            timestep = scheduler.timesteps[call_count]
        if takes_generator:
            kwargs.setdefault("generator", generator)
        result = make_step(model_output, timestep, sample, *args, **kwargs)
        call_count += 1
        call_total = max(len(scheduler.timesteps), step_count)
        number = call_count * step_count // call_total
        if number > (call_count - 1) * step_count // call_total:
            outputs = result if isinstance(result, tuple) else tuple(result.values())
            predict = functools.partial(
                predict_clean, scheduler, outputs, model_output, timestep, sample
            )
            on_step(Step(number, predict))
        return result

    scheduler.step = step
