"""Hooks: add the effects of adapters to the output of one layer."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from safelight_service.engine.hardware import copy_to_device
from safelight_service.engine.lora.effects import Addition, Factors

Hook: TypeAlias = Callable[[Any, tuple[Any, ...], Tensor], Tensor]
"""Returns the new output of a layer, given the layer, its inputs and its output."""


def hook_for_all(factors: Factors) -> Hook:
    """Return a hook that adds the same factors to all rows."""

    def add(layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + factors.multiply(layer, inputs[0])

    return add


def hook_with_others(
    hook: Hook | None, others: Sequence[tuple[slice, Addition]], row_count: int
) -> Hook:
    """Return a hook that also adds effects of other kinds, each to some of the rows."""

    def add(layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if row_count:
            _check_rows(layer, output, row_count)
        total = output.clone() if hook is None else hook(layer, inputs, output)
        for rows, addition in others:
            total[rows] += addition(inputs[0][rows], output[rows])
        return total

    return add


def hook_for_each(joined: Sequence[Factors | None], counts: Sequence[int]) -> Hook:
    """Return a hook that adds to the rows of each image its own factors; None: to none of them."""
    row_count = sum(counts)
    firsts = [sum(counts[:number]) for number in range(len(counts))]
    affected = [
        (factors, first, count)
        for factors, first, count in zip(joined, firsts, counts, strict=True)
        if factors is not None
    ]
    rows = [first + each for _, first, count in affected for each in range(count)]
    # Rows of one image share a product, if all images have equally many.
    share = counts[0] if len(set(counts)) == 1 else 1
    pairs = [each for each, _, count in affected for _ in range(count // share)]
    down, up = _stack(pairs)
    # Other rows must stay as they are, to the last bit.
    index = None if len(rows) == row_count else copy_to_device(torch.tensor(rows), down.device)

    def add(layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        [given] = inputs
        _check_rows(layer, given, row_count)
        chosen = given if index is None else given.index_select(0, index)
        multiply = _multiply if down.ndim == 3 else _convolve
        added = multiply(layer, chosen, down, up, share).view(-1, *output.shape[1:])
        return output + added if index is None else output.index_add(0, index, added)

    return add


def _check_rows(layer: Any, given: Tensor, row_count: int) -> None:
    if len(given) != row_count:
        raise ValueError(f"{type(layer).__name__} got {len(given)} rows, not {row_count}")


def _stack(pairs: Sequence[Factors]) -> Factors:
    """Stack factors of several images, padded with zeros to the longest rank."""
    rank = max(len(each.down) for each in pairs)
    first = pairs[0]
    down = first.down.new_zeros(len(pairs), rank, *first.down.shape[1:])
    up = first.up.new_zeros(len(pairs), len(first.up), rank, *first.up.shape[2:])
    for number, each in enumerate(pairs):
        down[number, : len(each.down)] = each.down
        up[number, :, : len(each.down)] = each.up
    return Factors(down, up)


def _multiply(_: Any, given: Tensor, down: Tensor, up: Tensor, share: int) -> Tensor:
    """Multiply rows (pairs * share, ..., inputs) by their factors."""
    grouped = given.reshape(len(down), -1, given.shape[-1])
    return torch.bmm(torch.bmm(grouped, down.mT), up.mT)


def _convolve(layer: Any, given: Tensor, down: Tensor, up: Tensor, share: int) -> Tensor:
    """Convolve rows (pairs * share, inputs, height, width) with their factors, as groups."""
    count, shape = len(down), given.shape[1:]
    grouped = given.reshape(count, share, *shape).transpose(0, 1)
    low = conv2d(
        grouped.reshape(share, -1, *shape[1:]),
        down.flatten(0, 1),
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
        groups=count,
    )
    pixels = low.view(share, count, -1, low.shape[2] * low.shape[3])
    joined = pixels.permute(1, 2, 0, 3).reshape(count, low.shape[1] // count, -1)
    high = torch.bmm(up.flatten(2), joined).view(count, up.shape[1], share, -1)
    return high.transpose(1, 2).contiguous()
