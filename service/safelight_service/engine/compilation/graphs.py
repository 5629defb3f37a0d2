"""Graphs: a denoiser's forward, compiled ahead for a few widths at each shape it is called with.

A forward of any number of rows is padded to the next of those widths, by repeating its last row,
so callers come and go without anything being compiled. A shape is all that a call is tied to but
its rows: first of all the size of the image. It is prepared one width after another, so that the
device can serve others in between, and calls of it wait until it is; calls of shapes that are
rare do not wait, but run as they are.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import structlog
import torch

from safelight_service.core.observer import Compilation, CompilationReason
from safelight_service.engine.batching.collation import (
    SAME,
    Arguments,
    CollationRule,
    choose_grad_mode,
    split,
)
from safelight_service.engine.compilation.buckets import Bucket, Preparation, list_shapes
from safelight_service.engine.compilation.recording import Recorder, StaticForward, make_recorder

_log = structlog.get_logger()

MOST_SHAPES = 8
"""Shapes of a model that are kept prepared."""

HOT_FORWARDS = 256
"""Forwards after which a further shape is prepared: that holds up everybody, at times for minutes,
and callers choose their sizes."""

IDLE_S = 60.0
"""Seconds without a forward after which a shape makes room for another."""

_MOST_COUNTED = 1024
"""Shapes whose forwards are counted before they are prepared."""


class _Shape:
    """The buckets of calls that differ in nothing but their rows."""

    def __init__(self) -> None:
        self.used_at = time.monotonic()
        self.buckets: dict[int, Bucket] = {}
        """By their rows, narrowest first."""
        self.profile: dict[int, float] = {}
        self.preparation: Preparation | None = None
        self.has_failed = False

    def find(self, row_count: int) -> tuple[int, Bucket] | None:
        """Return the narrowest bucket of at least so many rows, and its rows."""
        return next(((n, b) for n, b in self.buckets.items() if n >= row_count), None)

    def is_ready(self, row_count: int) -> bool:
        """Whether so many rows have a bucket, or will never have one."""
        if self.preparation is None and self.has_failed:
            return True
        return self.find(row_count) is not None


class BucketedForward:
    """Stands in for a denoiser's forward, in its grad mode; belongs to the device thread.

    What it returns is overwritten by the next forward, so it must be copied before.
    """

    def __init__(
        self,
        denoiser: Any,
        rule: CollationRule,
        device: torch.device,
        widths: Sequence[int],
        *,
        is_measured: bool = False,
        model: str = "",
        note: Callable[[Compilation], None] | None = None,
        most_shapes: int = MOST_SHAPES,
        hot_forwards: int = HOT_FORWARDS,
        idle_s: float = IDLE_S,
        backend: str = "inductor",
        recorder: Recorder | None = None,
    ) -> None:
        """Prepare nothing yet.

        `widths` are the numbers of images to prepare forwards for, ascending: all of them, or,
        with `is_measured`, those that pay. `note` is called with compilations that happen after
        the first shape has been prepared.
        """
        self._denoiser = denoiser
        self._grad_mode = choose_grad_mode(denoiser)
        self._rule = rule
        self._device = device
        self._widths = widths
        self._is_measured = is_measured
        self._model = model
        self._note = note
        self._most_shapes = most_shapes
        self._hot_forwards = hot_forwards
        self._idle_s = idle_s
        self._backend = backend
        self._recorder = recorder or make_recorder(device)
        self._shapes: OrderedDict[Hashable, _Shape] = OrderedDict()
        """The least recently used first."""
        self._plain_forwards: Counter[Hashable] = Counter()
        """Forwards of shapes that are not prepared."""
        self._has_warmed_up = False

    def __call__(self, **arguments: Any) -> Any:
        """Run a forward of merged arguments, or of one call's; as it is, if it is not prepared."""
        key, row_count = self._find_key(arguments), self._count_rows(arguments)
        shape = self._shapes.get(key)
        found = None if shape is None else shape.find(row_count)
        if shape is None or found is None:
            self._count_plain(key)
            return self._denoiser(**arguments)
        self._touch(key, shape)
        width, bucket = found
        output = bucket.run(self._pad(arguments, width))
        if bucket.was_recompiled():
            _log.warning("recompiled", model=self._model, shapes=bucket.shapes)
            self._tell("recompile")
        return split(output, (row_count, width - row_count))[0]

    def is_ready(self, arguments: Arguments) -> bool:
        """Whether a call of these arguments need not wait for `prepare`."""
        key = self._find_key(arguments)
        shape = self._shapes.get(key)
        if shape is None:
            return not self._is_wanted(key)
        return shape.is_ready(self._count_rows(arguments))

    def prepare(self, arguments: Arguments) -> None:
        """Prepare one more width for calls like this one; to be called until `is_ready`.

        It may take minutes, and does not raise: a shape that cannot be prepared runs as it is.
        """
        key = self._find_key(arguments)
        shape = self._shapes.get(key) or self._open(key)
        self._touch(key, shape)
        if shape.preparation is None:
            shape.preparation = self._begin(arguments)
        if shape.preparation.advance():
            return
        made, shape.preparation = shape.preparation, None
        shape.buckets = dict(sorted({**shape.buckets, **made.buckets}.items()))
        shape.profile |= made.profile
        shape.has_failed = shape.find(self._count_rows(arguments)) is None
        self._has_warmed_up = True
        _log.info(
            "shape_prepared",
            model=self._model,
            shapes=list_shapes(arguments),
            rows=list(shape.buckets),
            forward_ms={rows: round(1e3 * s, 2) for rows, s in made.profile.items()},
        )

    def profile(self, arguments: Arguments) -> Mapping[int, float | None]:
        """Return the rows that forwards like this one are padded to, and seconds if measured."""
        shape = self._shapes.get(self._find_key(arguments))
        if shape is None:
            return {}
        return {row_count: shape.profile.get(row_count) for row_count in shape.buckets}

    def _begin(self, arguments: Arguments) -> Preparation:
        if self._has_warmed_up:
            _log.info("new_shape", model=self._model, shapes=list_shapes(arguments))
            self._tell("new_shape")

        def make(row_count: int) -> Bucket:
            padded = self._pad(arguments, row_count)
            forward = StaticForward(self._denoiser, padded, self._device, self._backend)
            return Bucket(forward, self._recorder)

        row_counts = [width * self._count_rows(arguments) for width in self._widths]
        log = _log.bind(model=self._model, shapes=list_shapes(arguments))
        return Preparation(
            make, row_counts, self._device, log, self._grad_mode, is_measured=self._is_measured
        )

    def _is_wanted(self, key: Hashable) -> bool:
        """Whether a shape is worth preparing, and there is room for it."""
        if not self._has_warmed_up:
            return True
        if self._plain_forwards[key] < self._hot_forwards:
            return False
        oldest = next(iter(self._shapes.values()), None)
        return (
            oldest is None
            or len(self._shapes) < self._most_shapes
            or oldest.used_at < time.monotonic() - self._idle_s
        )

    def _open(self, key: Hashable) -> _Shape:
        while len(self._shapes) >= self._most_shapes:
            self._shapes.popitem(last=False)
        del self._plain_forwards[key]
        self._shapes[key] = _Shape()
        return self._shapes[key]

    def _touch(self, key: Hashable, shape: _Shape) -> None:
        shape.used_at = time.monotonic()
        self._shapes.move_to_end(key)

    def _count_plain(self, key: Hashable) -> None:
        if len(self._plain_forwards) >= _MOST_COUNTED:
            self._plain_forwards.clear()
        self._plain_forwards[key] += 1

    def _find_key(self, arguments: Arguments) -> Hashable:
        layouts = []
        for name, value in arguments.items():
            treatment = self._rule.get(name, SAME)
            layouts.append((name, (treatment.layout or treatment.key)(value)))
        return frozenset(layouts)

    def _count_rows(self, arguments: Arguments) -> int:
        return len(arguments[next(iter(self._rule))])

    def _pad(self, arguments: Arguments, width: int) -> dict[str, Any]:
        row_count = self._count_rows(arguments)
        padded = {}
        for name, value in arguments.items():
            pad = self._rule.get(name, SAME).pad
            assert pad is not None
            padded[name] = pad(value, row_count, width)
        return padded

    def _tell(self, reason: CompilationReason) -> None:
        if self._note is not None:
            self._note(Compilation(self._model, reason))


def find_obstacle(rule: CollationRule | None) -> str | None:
    """Return why forwards of that rule cannot be padded; None if they can."""
    if rule is None:
        return "no rule says which of its arguments have a row for each image"
    ragged = [name for name, treatment in rule.items() if treatment.pad is None]
    return f"the shape of its {ragged[0]} differs from prompt to prompt" if ragged else None
