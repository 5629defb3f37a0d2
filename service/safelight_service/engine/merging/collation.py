"""Collation: merges the arguments of several forwards, argument by argument.

`families.py` has a rule for each family of pipelines: a collator for each argument of the
denoiser's `forward`. Arguments that the rule does not name must be equal bit by bit.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safelight_service.engine.merging.fingerprint import fingerprint

Arguments = Mapping[str, Any]
"""The arguments of one forward, by name."""

GradMode = type[torch.no_grad] | type[torch.inference_mode]
"""A mode without gradients."""


@dataclass(frozen=True, slots=True)
class Collator:
    """How one argument is merged."""

    key: Callable[[Any], Hashable]
    """Returns a key of a value; forwards with equal keys can be merged."""
    merge: Callable[[str, Sequence[Arguments], Sequence[int]], Any]
    """Merges the argument of a name, given all members' arguments and row counts."""
    pad: Callable[[Any, int, int], Any] | None = None
    """Pads a value from a row count to a width by repeating the last row; None if its shape varies
    for other reasons than rows."""
    layout: Callable[[Any], Hashable] | None = None
    """Returns the part of a value that a compiled forward is tied to; None stands for `key`."""


CollationRule = Mapping[str, Collator]
"""Collators by argument; the first argument has as many rows as the forward."""


def rows(dim: int = 0) -> Collator:
    """Tensors with a row for each image, concatenated; None in all members or in none."""

    def key(value: Tensor | None) -> Hashable:
        if value is None:
            return None
        return value.dtype, value.device, (*value.shape[:dim], *value.shape[dim + 1 :])

    def merge(name: str, members: Sequence[Arguments], counts: Sequence[int]) -> Tensor | None:
        values = [arguments[name] for arguments in members]
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
    """Masks (rows, tokens) of the real tokens of the `TEXT` argument of that name.

    None stands for a mask that hides nothing; it is filled in where other texts are longer.
    """

    def merge(name: str, members: Sequence[Arguments], counts: Sequence[int]) -> Tensor | None:
        texts: list[Tensor] = [arguments[text] for arguments in members]
        masks: list[Tensor | None] = [arguments[name] for arguments in members]
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


def _merge_texts(name: str, members: Sequence[Arguments], counts: Sequence[int]) -> Tensor:
    return _fill_up([arguments[name] for arguments in members])


def _fill_up(texts: Sequence[Tensor]) -> Tensor:
    """Concatenate texts (rows, tokens, ...), padded with zeros to the longest."""
    token_count = max(text.shape[1] for text in texts)
    filled = texts[0].new_zeros(sum(map(len, texts)), token_count, *texts[0].shape[2:])
    row = 0
    for text in texts:
        filled[row : row + len(text), : text.shape[1]] = text
        row += len(text)
    return filled


def _merge_timesteps(name: str, members: Sequence[Arguments], counts: Sequence[int]) -> Tensor:
    values = [torch.as_tensor(arguments[name]) for arguments in members]
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
    """Return a float dtype: some schedulers count in integers, and models accept both."""
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.dtype if is_float else torch.float32


def _merge_items(name: str, members: Sequence[Arguments], counts: Sequence[int]) -> list[Any]:
    return [item for arguments in members for item in arguments[name]]


def _layout_by_name(value: Mapping[str, Tensor | None] | None) -> Hashable:
    return None if value is None else frozenset((n, ROWS.key(item)) for n, item in value.items())


def _merge_by_name(name: str, members: Sequence[Arguments], counts: Sequence[int]) -> Any:
    values = [arguments[name] for arguments in members]
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
    """Return a fingerprint without the content of tensors: only their shapes are compiled in."""
    match value:
        case Tensor():
            return value.dtype, value.device, value.shape
        case Mapping():
            return frozenset((name, _layout_of_same(item)) for name, item in value.items())
        case list() | tuple():
            return tuple(_layout_of_same(item) for item in value)
    return fingerprint(value)


def _take_first(name: str, members: Sequence[Arguments], counts: Sequence[int]) -> Any:
    return members[0][name]


ROWS = rows()
"""Tensors with a row for each image, concatenated; None in all members or in none."""

ROWS_BY_NAME = Collator(_layout_by_name, _merge_by_name, _pad_by_name)
"""Dictionaries of `ROWS`; None in all members or in none."""

TIMESTEP = Collator(_anything, _merge_timesteps, _pad_timesteps, _timestep_dtype)
"""A number, or one for each row; merged to one for each row."""

TEXT = Collator(_layout_of_text, _merge_texts)
"""Embedded texts (rows, tokens, channels) of any length, padded with zeros to the longest."""

ITEMS = Collator(_anything, _merge_items)
"""Lists with an item for each row, of any shape, concatenated."""

EQUAL_ITEMS = Collator(lambda value: fingerprint(value[0]), _merge_items)
"""Lists with an equal item for each row, concatenated."""

SAME = Collator(fingerprint, _take_first, _leave, _layout_of_same)
"""Any value that is equal in all members."""
