"""Merging: the forwards of several generations as one, and its output as theirs again.

A rule, one for each family in `families.py`, says how each argument of a denoiser's `forward`
is treated. Arguments that it does not name must be equal, to the last bit, for calls to be
merged.
"""

import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass
from torch.utils.weak import WeakTensorKeyDictionary

from safelight_service.engine.pipeline.host_values import known_values

Arguments = Mapping[str, Any]
"""The arguments of one forward, by name."""

GradMode = type[torch.no_grad] | type[torch.inference_mode]
"""A mode without gradients."""


@dataclass(frozen=True, slots=True)
class Collator:
    """How merging treats one argument."""

    key: Callable[[Any], Hashable]
    """Returns what must be equal in the argument for calls to be merged."""
    merge: Callable[[str, Sequence[Arguments], Sequence[int]], Any]
    """Merges the argument of that name, of these calls, which have so many rows each."""
    pad: Callable[[Any, int, int], Any] | None = None
    """Repeats the last row of a value, of so many, until there are so many; None where its shape
    differs from call to call for other reasons."""
    layout: Callable[[Any], Hashable] | None = None
    """Returns what a forward that was compiled for one shape is tied to; `key` where None."""


CollationRule = Mapping[str, Collator]
"""Treatments by argument; the first one's rows are those of the call."""


class Merger:
    """Merges the forwards of one denoiser by its family's rule; never, if there is none."""

    def __init__(self, denoiser: Any, rule: CollationRule | None) -> None:
        self._signature = inspect.signature(denoiser.forward)
        parameters = self._signature.parameters.values()
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        self._positional = [each.name for each in parameters if each.kind in by_position]
        self._names = frozenset(each.name for each in parameters if each.kind in by_name)
        self._rule = rule
        self._grad_mode = choose_grad_mode(denoiser)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Name the arguments of a call."""
        if self._names.issuperset(kwargs):  # as pipelines call: binding by hand costs a tenth
            named = {**dict(zip(self._positional, args, strict=False)), **kwargs}
            if len(named) == len(args) + len(kwargs):
                return named
        return self._signature.bind(*args, **kwargs).arguments

    def key(self, arguments: Arguments) -> Hashable:
        """Return what calls must have in common to be merged."""
        if self._rule is None:
            return object()
        return frozenset(
            (name, self._rule.get(name, SAME).key(value)) for name, value in arguments.items()
        )

    def count_rows(self, arguments: Arguments) -> int:
        """Count the rows of a call: a guided image may have two."""
        if self._rule is None:
            return 1
        return len(arguments[next(iter(self._rule))])

    def run(self, forward: Callable[..., Any], calls: Sequence[Arguments]) -> list[Any]:
        """Run calls of equal keys as one forward, and return what each alone would."""
        if len(calls) == 1:
            return [self._infer(forward, calls[0])]
        assert self._rule is not None
        counts = [self.count_rows(call) for call in calls]
        merged = {name: self._rule.get(name, SAME).merge(name, calls, counts) for name in calls[0]}
        return split(self._infer(forward, merged), counts)

    def _infer(self, forward: Callable[..., Any], arguments: Arguments) -> Any:
        """Run a forward in inference mode if it can be: that spares it what no_grad still does.

        What it returns is ordinary again: outside, inference tensors cannot be written into, as
        schedulers do.
        """
        with self._grad_mode():
            output = forward(**arguments)
        return _copy(output)


def choose_grad_mode(denoiser: Any) -> GradMode:
    """Return the mode that all forwards of a denoiser are to be run in.

    Quantized weights are tensors of a class of their own, and these fail in inference mode
    with some versions of torch (pytorch#170419).
    """
    is_quantized = any(map(is_traceable_wrapper_subclass, denoiser.parameters()))
    return torch.no_grad if is_quantized else torch.inference_mode


def _copy(output: Any) -> Any:
    match output:
        case Tensor():
            return output.clone()
        case list() | tuple():
            return type(output)(map(_copy, output))
        case Mapping():  # a ModelOutput
            return type(output)(**{name: _copy(item) for name, item in output.items()})
    return output


def split(output: Any, counts: Sequence[int]) -> list[Any]:
    """Split a denoiser's output into those of its calls, by their rows."""
    match output:
        case Tensor():
            return list(torch.split(output, list(counts)))
        case list():
            ends = [sum(counts[: number + 1]) for number in range(len(counts))]
            return [output[end - count : end] for end, count in zip(ends, counts, strict=True)]
        case tuple():
            return list(zip(*(split(item, counts) for item in output), strict=True))
        case Mapping():  # a ModelOutput
            parts = {name: split(item, counts) for name, item in output.items()}
            return [
                type(output)(**{name: part[number] for name, part in parts.items()})
                for number in range(len(counts))
            ]
    raise TypeError(f"a denoiser returned {type(output).__name__}, which cannot be split")


def fingerprint(value: Any) -> Hashable:
    """Return something that is equal for equal values; tensors are compared bit by bit."""
    match value:
        case Tensor():
            return _fingerprint_tensor(value)
        case Mapping():
            return frozenset((name, fingerprint(item)) for name, item in value.items())
        case list() | tuple():
            return tuple(fingerprint(item) for item in value)
        case None | bool() | int() | float() | str() | torch.dtype() | torch.device():
            return value
    return id(value)


_fingerprints: Any = WeakTensorKeyDictionary()
"""Of tensors read before: pipelines pass the same ones at every step, and reading one waits for
the device."""


def _fingerprint_tensor(value: Tensor) -> Hashable:
    known: Hashable
    version, known = _fingerprints.get(value, (None, None))
    if version != value._version:
        values = known_values(value)
        if values is None:
            values = value.detach().cpu()
        content = values.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        known = value.dtype, tuple(value.shape), content
        _fingerprints[value] = value._version, known
    return known


def rows(dim: int = 0) -> Collator:
    """Tensors with a row for each image, concatenated; None in all calls or in none."""

    def key(value: Tensor | None) -> Hashable:
        if value is None:
            return None
        return value.dtype, value.device, (*value.shape[:dim], *value.shape[dim + 1 :])

    def merge(name: str, calls: Sequence[Arguments], counts: Sequence[int]) -> Tensor | None:
        values = [call[name] for call in calls]
        return None if values[0] is None else torch.cat(values, dim)

    def pad(value: Tensor | None, _: int, width: int) -> Tensor | None:
        return None if value is None else _repeat_last(value, width, dim)

    return Collator(key, merge, pad)


def _repeat_last(value: Tensor, width: int, dim: int) -> Tensor:
    missing = width - value.shape[dim]
    if missing == 0:
        return value
    last = value.narrow(dim, -1, 1)
    return torch.cat([value, last.expand(*last.shape[:dim], missing, *last.shape[dim + 1 :])], dim)


def text_mask(text: str) -> Collator:
    """Which tokens of the `TEXT` argument of that name are real: (rows, tokens), None for all.

    Pipelines leave out a mask that hides nothing; beside longer texts it must be there.
    """

    def merge(name: str, calls: Sequence[Arguments], counts: Sequence[int]) -> Tensor | None:
        texts: list[Tensor] = [call[text] for call in calls]
        masks: list[Tensor | None] = [call[name] for call in calls]
        is_ragged = len({embedded.shape[1] for embedded in texts}) > 1
        if not is_ragged and all(mask is None for mask in masks):
            return None
        return _fill_up(
            [
                embedded.new_ones(embedded.shape[:2], dtype=torch.bool)
                if mask is None
                else mask.bool()
                for embedded, mask in zip(texts, masks, strict=True)
            ]
        )

    return Collator(_anything, merge)


def _anything(_: Any) -> Hashable:
    return None


def _layout_of_text(value: Tensor) -> Hashable:
    return value.dtype, value.device, value.shape[2:]


def _merge_texts(name: str, calls: Sequence[Arguments], counts: Sequence[int]) -> Tensor:
    return _fill_up([call[name] for call in calls])


def _fill_up(texts: Sequence[Tensor]) -> Tensor:
    """Concatenate (rows, tokens, ...), with zeros on the right up to the longest."""
    token_count = max(text.shape[1] for text in texts)
    filled = texts[0].new_zeros(sum(map(len, texts)), token_count, *texts[0].shape[2:])
    row = 0
    for text in texts:
        filled[row : row + len(text), : text.shape[1]] = text
        row += len(text)
    return filled


def _merge_timesteps(name: str, calls: Sequence[Arguments], counts: Sequence[int]) -> Tensor:
    values = [torch.as_tensor(call[name]) for call in calls]
    devices = {value.device for value in values}
    device = next((device for device in devices if device.type != "cpu"), torch.device("cpu"))
    dtypes = {value.dtype for value in values}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    return torch.cat(
        [value.to(device, dtype).expand(count) for value, count in zip(values, counts, strict=True)]
    )


def _pad_timesteps(value: Any, row_count: int, width: int) -> Tensor:
    timesteps = torch.as_tensor(value)
    return _repeat_last(timesteps.to(_timestep_dtype(value)).expand(row_count), width, 0)


def _timestep_dtype(value: Any) -> torch.dtype:
    """Schedulers count in integers or in floats, and models take both for the same."""
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.dtype if is_float else torch.float32


def _merge_items(name: str, calls: Sequence[Arguments], counts: Sequence[int]) -> list[Any]:
    return [item for call in calls for item in call[name]]


def _layout_by_name(value: Mapping[str, Tensor | None] | None) -> Hashable:
    return None if value is None else frozenset((n, ROWS.key(item)) for n, item in value.items())


def _merge_by_name(name: str, calls: Sequence[Arguments], counts: Sequence[int]) -> Any:
    values = [call[name] for call in calls]
    if values[0] is None:
        return None
    return {inner: ROWS.merge(inner, values, counts) for inner in values[0]}


def _pad_by_name(
    value: Mapping[str, Tensor | None] | None, row_count: int, width: int
) -> dict[str, Any] | None:
    assert ROWS.pad is not None
    if value is None:
        return None
    return {name: ROWS.pad(item, row_count, width) for name, item in value.items()}


def _leave(value: Any, _: int, __: int) -> Any:
    return value


def _layout_of_same(value: Any) -> Hashable:
    """Like a fingerprint, but for the content of tensors: only their shapes are compiled in."""
    match value:
        case Tensor():
            return value.dtype, value.device, value.shape
        case Mapping():
            return frozenset((name, _layout_of_same(item)) for name, item in value.items())
        case list() | tuple():
            return tuple(_layout_of_same(item) for item in value)
    return fingerprint(value)


def _take_first(name: str, calls: Sequence[Arguments], counts: Sequence[int]) -> Any:
    return calls[0][name]


ROWS = rows()
"""Tensors with a row for each image, concatenated; None in all calls or in none."""

ROWS_BY_NAME = Collator(_layout_by_name, _merge_by_name, _pad_by_name)
"""Dictionaries of `ROWS`; None in all calls or in none."""

TIMESTEP = Collator(_anything, _merge_timesteps, _pad_timesteps, _timestep_dtype)
"""A number, or one for each row; becomes one for each row."""

TEXT = Collator(_layout_of_text, _merge_texts)
"""Embedded texts of any length: (rows, tokens, width), filled up to the longest."""

ITEMS = Collator(_anything, _merge_items)
"""Lists with an item for each row, of any shape, concatenated."""

EQUAL_ITEMS = Collator(lambda value: fingerprint(value[0]), _merge_items)
"""Lists with an item for each row, all equal, concatenated."""

SAME = Collator(fingerprint, _take_first, _leave, _layout_of_same)
"""Anything that is equal in all calls."""
