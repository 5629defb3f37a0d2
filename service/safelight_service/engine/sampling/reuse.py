"""Step reuse: denoiser outputs of some steps are extrapolated from earlier ones, not computed.

The steps are chosen when an image starts. No value on the device decides, so the host never waits.
Between two steps an output changes nearly linearly, so a line through the last two computed ones
comes closer than the last one alone, and closer than a parabola through three
(`benchmarks/reuse.py`).
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

MAX_SHARE = 0.6
"""Largest share of reused steps: beyond it, fewer steps give better images."""

FIRST_STEPS = 2
"""Steps at the start that are always computed: a line needs two outputs."""

_FIRST_SHARE, _LAST_SHARE = 0.1, 0.05
"""Shares of steps at the start and at the end that are always computed."""

_MOST_IN_A_ROW = 3


def choose_steps(
    step_count: int, share: float, errors: Sequence[float] | None = None
) -> frozenset[int]:
    """Choose the steps to reuse, counted from 0; at most `share` of `step_count`.

    The first two steps and the last one are always computed.

    Args:
        step_count: Denoising steps of the image.
        share: Wanted share of reused steps, from 0 to MAX_SHARE.
        errors: Calibrated error of the image if only the step at this place of the schedule is
            reused, in places of equal length; None spreads the steps evenly.
    """
    count = math.floor(share * step_count + 1e-9)
    if errors is not None:
        return _choose_cheapest(step_count, count, tuple(errors))
    first = max(FIRST_STEPS, round(_FIRST_SHARE * step_count))
    free = step_count - first - max(1, round(_LAST_SHARE * step_count))
    count = min(count, free * _MOST_IN_A_ROW // (_MOST_IN_A_ROW + 1))
    if count <= 0:
        return frozenset()
    # Step number n is reused where the line n * count / free passes a whole number.
    return frozenset(
        first + number
        for number in range(free)
        if (number + 1) * count // free > number * count // free
    )


@functools.lru_cache(maxsize=1024)  # many steps take 20 ms, on the event loop
def _choose_cheapest(step_count: int, count: int, errors: tuple[float, ...]) -> frozenset[int]:
    """Add one step after the other, each time the one that adds the least error."""

    def cost(chosen: frozenset[int], step: int) -> float:
        """Return the error of the run of reused steps around `step`, infinite if it is too long.

        An extrapolation over n steps errs about n to the third as much as over one.
        """
        begin = end = step
        while begin - 1 in chosen:
            begin -= 1
        while end + 1 in chosen:
            end += 1
        if end - begin >= _MOST_IN_A_ROW:
            return math.inf
        return sum(
            errors[each * len(errors) // step_count] * (each - begin + 1) ** 3
            for each in range(begin, end + 1)
        )

    chosen: frozenset[int] = frozenset()
    for _ in range(count):
        added = {
            step: cost(chosen | {step}, step)
            - sum(cost(chosen, near) for near in (step - 1, step + 1) if near in chosen)
            for step in range(FIRST_STEPS, step_count - 1)
            if step not in chosen
        }
        step = min(added, key=added.__getitem__, default=None)
        if step is None or math.isinf(added[step]):
            break
        chosen |= {step}
    return chosen


class StepReuse:
    """Steps of one image that are reused, and the outputs to extrapolate from.

    A step may have several forwards, for guidance or by a second-order scheduler; each continues
    those at the same place of earlier steps.
    """

    def __init__(self, steps: frozenset[int]) -> None:
        self.steps = steps
        self.forward_count = 0
        """Forwards that have been saved so far."""
        self._place = (-1, 0)
        """Present step and the number of its forwards so far."""
        self._computed: dict[int, list[tuple[int, Any]]] = {}
        """Last two outputs with their steps, by the place of the forward in its step."""

    def count_computed(self, first: int, end: int) -> int:
        """Return the computed steps from `first` to before `end`."""
        return end - first - sum(first <= step < end for step in self.steps)

    def begin_forward(self, step: int) -> Any | None:
        """Return the extrapolated output of the next forward of a step; None to compute it."""
        count = self._place[1] + 1 if self._place[0] == step else 0
        self._place = step, count
        computed = self._computed.get(count, ())
        if step not in self.steps or len(computed) < 2:
            return None
        self.forward_count += 1
        (before_step, before), (last_step, last) = computed
        weight = (step - last_step) / (last_step - before_step)
        return _combine(last, before, weight)

    def note(self, output: Any) -> None:
        """Note the computed output of the forward that has begun last."""
        if not self.steps:
            return
        step, count = self._place
        # Schedulers write into outputs.
        computed = [*self._computed.get(count, ()), (step, _combine(output, output, 0.0))]
        self._computed[count] = computed[-2:]


def _combine(last: Any, before: Any, weight: float) -> Any:
    """Return `last` and `weight` times its difference from `before`, in tensors of its own."""
    match last:
        case Tensor():
            return last + (last - before) * weight if weight else last.clone()
        case list() | tuple():
            return type(last)(
                _combine(one, other, weight) for one, other in zip(last, before, strict=True)
            )
        case Mapping():  # a ModelOutput
            return type(last)(
                **{name: _combine(item, before[name], weight) for name, item in last.items()}
            )
    return last
