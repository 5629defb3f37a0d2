"""Rehearsal: tries schedulers on small noise, with a linear function in place of the denoiser."""

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cachetools import LRUCache

STEP_COUNTS = (1, 2, 3, 5, 20)
"""Tried numbers of steps. Solvers change their order at both ends, and below 15 steps."""

_SHAPE = (1, 4, 4, 4)
_SHIFT = 1.0
"""A dynamic shift, about that of a picture of 1024 x 1024."""

_MOST_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class ScheduleCall:
    """How a pipeline asks for its timesteps: with or without noise levels and a shift."""

    passes_sigmas: bool = False
    passes_shift: bool = False

    def arguments(self, step_count: int) -> dict[str, Any]:
        """Return the arguments of `set_timesteps`."""
        arguments: dict[str, Any] = {"device": "cpu"}
        if self.passes_sigmas:
            arguments["sigmas"] = np.linspace(1.0, 1 / step_count, step_count)
        else:
            arguments["num_inference_steps"] = step_count
        if self.passes_shift:
            arguments["mu"] = _SHIFT
        return arguments


def find_fault(
    make: Callable[[], Any], calls: Sequence[ScheduleCall], step_counts: Sequence[int]
) -> str | None:
    """Return why schedulers from `make` fail; None if they work for all calls and step counts.

    Remembers the answer by class and configuration. Draws nothing from the global random state.
    """
    key = make().to_json_string(), tuple(calls), tuple(step_counts)
    with _lock:
        if key in _known:
            return _known[key]
    fault = None
    for call in calls:
        for step_count in step_counts:
            fault = fault or _try_steps(make(), call, step_count)
    with _lock:
        _known[key] = fault
    return fault


_known: LRUCache[Any, str | None] = LRUCache(_MOST_REMEMBERED)
_lock = threading.Lock()


@torch.no_grad()
def _try_steps(scheduler: Any, call: ScheduleCall, step_count: int) -> str | None:
    try:
        with np.errstate(all="ignore"):
            latents = run(scheduler, call, step_count)
    except Exception as error:
        return f"raises {type(error).__name__} at {step_count} steps"
    if latents.isfinite().all():
        return None
    return f"gives values that are not finite at {step_count} steps"


def run(scheduler: Any, call: ScheduleCall, step_count: int) -> torch.Tensor:
    """Denoise noise (1, 4, 4, 4) in so many steps, and return the last latents.

    The model predicts half of its input.
    """
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(**call.arguments(step_count))
    options: dict[str, Any] = {"return_dict": False}
    if _takes_generator(type(scheduler).step):
        options["generator"] = generator
    scale = getattr(scheduler, "scale_model_input", lambda sample, _: sample)
    sample = torch.randn(_SHAPE, generator=generator) * getattr(scheduler, "init_noise_sigma", 1.0)
    for timestep in scheduler.timesteps:
        sample = scheduler.step(scale(sample, timestep) * 0.5, timestep, sample, **options)[0]
    return sample


@functools.cache
def _takes_generator(step: Any) -> bool:
    return "generator" in inspect.signature(step).parameters
