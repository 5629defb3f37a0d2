"""ForwardRunner: runs merged forwards, and recovers from those that fail.

After a shortage of memory each half of the images is run by itself, and fewer rows are merged
for some time. After any other error each image is run alone, so that an image fails only if
its own forward does. If none fails, merging was the cause, and is suspended.
"""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from safelight_service.core.timeline import SharedForward
from safelight_service.engine import hardware
from safelight_service.engine.batching.accounts.busy_clock import BusyClock
from safelight_service.engine.image_run import ImageRun
from safelight_service.engine.operations import Forward

_log = structlog.get_logger()


class ForwardRunner:
    """Runs the forwards of images that can share one. Used by the device thread only."""

    def __init__(
        self, busy: BusyClock, note_forward: Callable[[SharedForward], None] | None = None
    ) -> None:
        self.was_split = False
        """Whether the last merged forward failed, and was run in parts."""
        self._busy = busy
        self._note_forward = note_forward

    def run(self, members: Sequence[ImageRun]) -> list[Any]:
        """Run the forwards of `members` as one; return the output or the error of each."""
        self.was_split = False
        return self._run(members)

    def _run(self, members: Sequence[ImageRun]) -> list[Any]:
        began_at = self._busy.start()
        model, cost_model = members[0].job.model, members[0].job.cost_model
        forwards = [image.operation_as(Forward) for image in members]
        row_count = sum(forward.row_count for forward in forwards)
        run = functools.partial(model.run, forwards)
        try:
            outputs: list[Any] = run() if len(members) > 1 else hardware.run_with_room(run)
        except Exception as error:
            if len(members) == 1:
                return [error]
            error_type, has_no_room = type(error).__name__, hardware.is_out_of_memory(error)
        else:
            for image in members:
                image.widths[len(members)] += 1
            cost_model.note_merged(len(members), row_count)
            if self._note_forward is not None:
                steps = tuple((image.timeline, image.step_count) for image in members)
                self._note_forward(SharedForward(began_at, time.monotonic(), row_count, steps))
            return outputs
        # Recover only here, where the error no longer holds the tensors of the failed forward.
        self.was_split = True
        if has_no_room:
            hardware.empty_cache()
            cost_model.halve_room(row_count)
            half = len(members) // 2
            return [*self._run(members[:half]), *self._run(members[half:])]
        outcomes = [self._run([image])[0] for image in members]
        if not any(isinstance(outcome, Exception) for outcome in outcomes):
            cost_model.stop_merging()
            _log.warning("merging_failed", model=model.name, error_type=error_type)
        return outcomes
