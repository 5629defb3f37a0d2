"""Denoising as seen from outside an unmodified pipeline.

A pipeline runs on a shallow copy of its own. Its scheduler's `step` is wrapped to
see every step, and its denoiser is replaced by a proxy that is asked before every
forward. Both can raise to stop the pipeline; no callback argument is needed,
which some pipelines lack and others ignore.
"""

import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from safelight_service.engine.clean import predict_clean


@dataclass(frozen=True, slots=True)
class Step:
    """A step that has been made, from 1 to `step_count`."""

    number: int
    predict_clean: Callable[[], torch.Tensor]
    """Predicts the clean latents, in the pipeline's own layout."""


class DenoiserProxy:
    """Stands in for a pipeline's denoiser; everything but calls goes through."""

    def __init__(self, denoiser: torch.nn.Module, before_forward: Callable[[], None]) -> None:
        self._denoiser = denoiser
        self._before_forward = before_forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the denoiser, unless `before_forward` raises."""
        self._before_forward()
        return self._denoiser(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)


def observe_steps(scheduler: Any, step_count: int, on_step: Callable[[Step], None]) -> None:
    """Have `on_step` called after each of the scheduler's `step_count` steps.

    Second-order schedulers take two calls for most steps, and PNDM one more than
    it was asked for, so steps are counted in proportion to the calls.
    """
    make_step = scheduler.step
    run_ahead = _RunAhead()
    call_count = 0

    @functools.wraps(make_step)  # pipelines inspect the signature
    def step(model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal call_count
        result = make_step(model_output, timestep, sample, *args, **kwargs)
        call_count += 1
        run_ahead.bound(sample.device)
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


class _RunAhead:
    """Keeps the host at most one step ahead of a device that works asynchronously.

    Otherwise progress would be told, and cancellations heeded, long before the
    device has caught up.
    """

    def __init__(self) -> None:
        self._marks: deque[torch.cuda.Event] = deque()

    def bound(self, device: torch.device) -> None:
        if device.type != "cuda":
            return
        mark = torch.cuda.Event()  # type: ignore[no-untyped-call]
        mark.record(torch.cuda.current_stream(device))
        self._marks.append(mark)
        if len(self._marks) > 1:
            self._marks.popleft().synchronize()
