"""Schedule: the timesteps of a scheduler, set for any valid request without a wait."""

import functools
import inspect
from typing import Any

import numpy as np
import torch


def adapt_schedule(scheduler: Any) -> None:
    """Make a scheduler's `set_timesteps` take what all pipelines pass, and not wait for a device.

    Schedules that work already stay the same.
    """
    if scheduler.config.get("shift_terminal"):
        # Stretching a schedule of one step would divide 0 by 0.
        stretch = scheduler.stretch_shift_to_terminal
        scheduler.stretch_shift_to_terminal = lambda t: stretch(t) if len(t) > 1 else t
    set_timesteps = scheduler.set_timesteps
    signature = _signature(type(scheduler).set_timesteps)

    @functools.wraps(set_timesteps)  # pipelines inspect the signature
    def set_patched(*args: Any, **kwargs: Any) -> None:
        if kwargs.get("sigmas") is not None:
            # Z-Image passes a list, which UniPC cannot multiply.
            kwargs["sigmas"] = np.asarray(kwargs["sigmas"])
        if not scheduler.config.get("use_dynamic_shifting"):
            # HiDream passes a shift, which DPM-Solver and DEIS reject.
            kwargs.pop("mu", None)
        bound = signature.bind(None, *args, **kwargs)
        device = bound.arguments.get("device")
        if device is not None and torch.device(device).type != "mps":  # has no float64
            # The host needs the noise levels at each step. Many schedulers would compute them on
            # the device, and wait for the copy.
            bound.arguments["device"] = "cpu"
        set_timesteps(*bound.args[1:], **bound.kwargs)
        scheduler.timesteps = scheduler.timesteps.to(device=device)
        if type(scheduler).__name__ == "EulerAncestralDiscreteScheduler":
            _avoid_cancellation(scheduler)
        if hasattr(scheduler, "set_begin_index"):
            # Otherwise the first step searches its timestep, and waits for the device.
            scheduler.set_begin_index(0)

    scheduler.set_timesteps = set_patched


@functools.cache
def _signature(method: Any) -> inspect.Signature:
    """Return the signature of a method, `self` included; to find it takes as long as a step."""
    return inspect.signature(method)


def _avoid_cancellation(scheduler: Any) -> None:
    """Use float64 for noise levels whose differences would be negative in float32.

    An ancestral step takes the root of a difference, which cancels in steps from a high to a low
    noise. Other schedules keep float32, and so their images.
    """
    above, below = scheduler.sigmas[:-1], scheduler.sigmas[1:]
    added = (below**2 * (above**2 - below**2) / above**2) ** 0.5
    if (below**2 - added**2).amin() < 0:
        scheduler.sigmas = scheduler.sigmas.double()
