"""Merging: the forwards of several generations as one, and its output as theirs again.

A rule, one for each family in `families.py`, says how each argument of a denoiser's `forward`
is treated. Arguments that it does not name must be equal, to the last bit, for calls to be
merged.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safelight_service.engine.batching.fingerprint import fingerprint

Arguments = Mapping[str, Any]
"""The arguments of one forward, by name."""


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
