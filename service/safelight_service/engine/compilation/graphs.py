"""Graphs: a denoiser's forward, compiled ahead for a few widths of each shape.

A forward of any number of rows is padded to the next width by repeating its last row. So images
come and go without a compilation. A shape is everything that a compiled forward is tied to
except its rows, such as the size of the image. Its widths are prepared one at a time, so that the
device serves other images in between; forwards of the shape wait. Rare shapes are not prepared:
their forwards run uncompiled, without a wait.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import structlog
import torch

from safelight_service.core.observer import Compilation, CompilationReason
from safelight_service.engine.compilation.buckets import Bucket, Preparation, list_shapes
from safelight_service.engine.compilation.recording import Recorder, StaticForward, make_recorder
from safelight_service.engine.merging.collation import SAME, Arguments, CollationRule
from safelight_service.engine.merging.merger import choose_grad_mode, split

_log = structlog.get_logger()

MOST_SHAPES = 8
"""Maximum number of prepared shapes of a model."""

HOT_FORWARDS = 256
"""Forwards of a further shape after which it is prepared. Preparing may stop all images for
minutes, and callers choose their sizes."""

IDLE_S = 60.0
"""Seconds without a forward after which a shape may be evicted."""

_MOST_COUNTED = 1024
"""Maximum number of unprepared shapes whose forwards are counted."""


class _Shape:
    """Buckets of forwards that differ in their rows only."""

    def __init__(self) -> None:
        self.used_at = time.monotonic()
        self.buckets: dict[int, Bucket] = {}
        """Buckets by rows, narrowest first."""
        self.profile: dict[int, float] = {}
        self.preparation: Preparation | None = None
        self.has_failed = False

    def find(self, row_count: int) -> tuple[int, Bucket] | None:
        """Return the narrowest bucket of at least this many rows, preceded by its rows."""
        return next(((n, b) for n, b in self.buckets.items() if n >= row_count), None)

    def is_ready(self, row_count: int) -> bool:
        """Whether forwards of this many rows need not wait: a bucket fits, or none can be made."""
        if self.preparation is None and self.has_failed:
            return True
        return self.find(row_count) is not None


class BucketedForward:
    """Stands in for a denoiser's forward. Used by the device thread only, in its grad mode.

    The next forward overwrites the output, so copy it first.
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

        `widths` are the numbers of images to prepare forwards for, ascending; with `is_measured`
        only those that pay are kept. Calls `note` with each compilation after the first shape.
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
        """Prepared shapes by key, the least recently used first."""
        self._plain_forwards: Counter[Hashable] = Counter()
        """Numbers of forwards of unprepared shapes."""
        self._has_warmed_up = False

    def __call__(self, **arguments: Any) -> Any:
        """Run a forward by its bucket; uncompiled, if none is prepared."""
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
            self._report("recompile")
        return split(output, (row_count, width - row_count))[0]

    def is_ready(self, arguments: Arguments) -> bool:
        """Whether a forward of these arguments can run without `prepare`."""
        key = self._find_key(arguments)
        shape = self._shapes.get(key)
        if shape is None:
            return not self._is_wanted(key)
        return shape.is_ready(self._count_rows(arguments))

    def prepare(self, arguments: Arguments) -> None:
        """Prepare one more width of this shape; call it until `is_ready`.

        May take minutes. Does not raise: a shape that cannot be prepared runs uncompiled.
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
        """Return the buckets' rows of this shape, with the seconds of a forward if measured."""
        shape = self._shapes.get(self._find_key(arguments))
        if shape is None:
            return {}
        return {row_count: shape.profile.get(row_count) for row_count in shape.buckets}

    def _begin(self, arguments: Arguments) -> Preparation:
        if self._has_warmed_up:
            _log.info("new_shape", model=self._model, shapes=list_shapes(arguments))
            self._report("new_shape")

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
        """Whether a shape is used enough to be prepared, and there is room for it."""
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
            collator = self._rule.get(name, SAME)
            layouts.append((name, (collator.layout or collator.key)(value)))
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

    def _report(self, reason: CompilationReason) -> None:
        if self._note is not None:
            self._note(Compilation(self._model, reason))


def find_obstacle(rule: CollationRule | None) -> str | None:
    """Return the reason why forwards of a rule cannot be padded; None if they can."""
    if rule is None:
        return "it has no rule for the rows of its arguments"
    ragged = [name for name, collator in rule.items() if collator.pad is None]
    return f"the shape of its {ragged[0]} differs from prompt to prompt" if ragged else None
