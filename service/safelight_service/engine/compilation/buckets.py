"""Buckets: the few widths that forwards are padded to, each compiled ahead."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import structlog
import torch

from safelight_service.engine import hardware
from safelight_service.engine.compilation.recording import Recorder, Run, StaticForward
from safelight_service.engine.merging.collation import Arguments
from safelight_service.engine.merging.merger import GradMode

_log = structlog.get_logger()

LEAST_GAIN = 1.05
"""Minimum ratio of a bucket's throughput to that of the next narrower one."""

_IMAGES = (1, 2, 4, 8, 16)

_MOST_CHARACTERS = 300
"""Maximum length of an error's text in the log; some run to pages."""

_RUNS = 3
"""Timed runs of a bucket; the fastest counts."""


def list_widths(most_images: int | None) -> tuple[int, ...]:
    """Return the numbers of images to prepare forwards for, up to `most_images` if given."""
    if most_images is None:
        return _IMAGES
    widest = min(most_images, _IMAGES[-1])
    return (*(images for images in _IMAGES if images < widest), widest)


def choose_buckets(profile: Mapping[int, float]) -> tuple[int, ...]:
    """Return the rows of the buckets that pay, narrowest first.

    `profile` holds the seconds of a forward by its rows. The narrowest bucket always pays. A wider
    one pays if its throughput is at least LEAST_GAIN times that of the next narrower that pays.
    """
    kept: list[int] = []
    for row_count in sorted(profile):
        if not kept or _rate(profile, row_count) >= LEAST_GAIN * _rate(profile, kept[-1]):
            kept.append(row_count)
    return tuple(kept)


def _rate(profile: Mapping[int, float], row_count: int) -> float:
    return row_count / profile[row_count]


class Bucket:
    """A compiled forward of a fixed number of rows."""

    def __init__(self, forward: StaticForward, recorder: Recorder) -> None:
        """Compile and warm up the forward.

        Raises:
            Exception: the forward cannot be compiled or run.
        """
        self._forward = forward
        self._recorder = recorder
        self._run: Run = forward.run
        recorder.warm_up(forward.run)
        self._compile_count = forward.compiler.count

    @property
    def shapes(self) -> Mapping[str, Sequence[int]]:
        """Shapes of its inputs, by name."""
        return list_shapes(self._forward.inputs)

    def run(self, arguments: Arguments) -> Any:
        """Run the forward; the next run overwrites the output."""
        self._forward.load(arguments)
        return self._run()

    def record(self) -> None:
        """Record the forward for fast replays; without a record it still runs, only slower.

        Raises:
            Exception: the device is out of memory.
        """
        try:
            self._run = self._recorder.record(self._forward.run)
        except Exception as error:
            if hardware.is_out_of_memory(error):
                raise
            _log.warning("not_recorded", shapes=self.shapes, **_describe(error))

    def measure(self, device: torch.device) -> float:
        """Return the seconds of a recorded run, and discard the record."""
        self.record()
        seconds: list[float] = []
        for _ in range(_RUNS):
            hardware.synchronize(device)
            began_at = time.perf_counter()
            self._run()
            hardware.synchronize(device)
            seconds.append(time.perf_counter() - began_at)
        self._run = self._forward.run
        return min(seconds)

    def was_recompiled(self) -> bool:
        """Whether the forward has been compiled again since the last call of this method."""
        before, self._compile_count = self._compile_count, self._forward.compiler.count
        return self._compile_count > before


class Preparation:
    """Makes the buckets of a shape, one at a time."""

    def __init__(
        self,
        make: Callable[[int], Bucket],
        row_counts: Sequence[int],
        device: torch.device,
        log: Any,
        grad_mode: GradMode,
        *,
        is_measured: bool,
    ) -> None:
        """Make no bucket yet. `row_counts` must ascend; `is_measured` keeps only those that pay."""
        self.buckets: dict[int, Bucket] = {}
        """Buckets by rows, once all have been made."""
        self.profile: dict[int, float] = {}
        """Seconds of a forward by rows, if measured."""
        self._make = make
        self._row_counts = row_counts
        self._device = device
        self._log = log
        self._grad_mode = grad_mode
        self._is_measured = is_measured
        self._steps = self._work()

    def advance(self) -> bool:
        """Make one more bucket; false if none is left. Logs errors instead of raising them."""
        with self._grad_mode():  # as for later forwards, which write into these tensors
            return next(self._steps, False)

    def _work(self) -> Iterator[bool]:
        made: dict[int, Bucket] = {}
        for row_count in self._row_counts:
            try:
                made[row_count] = self._make(row_count)
                if self._is_measured:
                    self.profile[row_count] = made[row_count].measure(self._device)
            except Exception as error:
                made.pop(row_count, None)
                self._report(row_count, error)
                break
            yield True
            if self._is_measured and row_count not in choose_buckets(self.profile):
                del made[row_count]
                break
        for row_count in sorted(made, reverse=True):  # narrower ones reuse the widest's memory
            try:
                made[row_count].record()
            except Exception as error:
                del made[row_count]
                self._report(row_count, error)
        self.buckets = dict(sorted(made.items()))

    def _report(self, row_count: int, error: Exception) -> None:
        if hardware.is_out_of_memory(error):
            hardware.empty_cache()
        self._log.warning("bucket_failed", rows=row_count, **_describe(error))


def _describe(error: Exception) -> dict[str, str]:
    """Return the log fields of an error of the compiler or the device; it holds no prompt."""
    text = " ".join(str(error).split())
    return {"error_type": type(error).__name__, "error": text[:_MOST_CHARACTERS]}


def list_shapes(arguments: Arguments) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors among the arguments, by name."""
    tensors = {name: value for name, value in arguments.items() if isinstance(value, torch.Tensor)}
    return {name: tuple(value.shape) for name, value in tensors.items()}
