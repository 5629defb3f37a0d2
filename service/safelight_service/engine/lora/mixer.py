"""Mixer: adds the adapters of several images to one forward of a component.

Each image has its own mixture. The low-rank factors of its adapters are joined to one pair for each
layer, and the pairs of all images, padded to the longest rank, run as batched products. The layers
themselves stay as they are: hooks add to their outputs, and are removed after the forward.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear

from safelight_service.engine.lora.lora import Factors, Mixture

Hook = Callable[[Any, tuple[Any, ...], Tensor], Tensor]

_MOST_PLANS = 2
"""Kept plans. Each has a copy of the factors of its images' adapters."""


class Mixer:
    """Applies mixtures to the layers of one component.

    Used by the device thread only, except where noted.
    """

    def __init__(self, component: str, module: torch.nn.Module) -> None:
        self._component = component
        self._module = module
        self._plans: OrderedDict[Any, list[tuple[Any, Hook]]] = OrderedDict()

    @contextmanager
    def applied(self, mixtures: Sequence[Mixture], counts: Sequence[int]) -> Iterator[None]:
        """Apply to each image of a forward, of `counts` rows, its mixture within the block."""
        with ExitStack() as stack:
            for layer, hook in self._plan(mixtures, counts):
                stack.callback(layer.register_forward_hook(hook).remove)
            yield

    def forget(self) -> None:
        """Release the copies of factors; safe to call from any thread."""
        self._plans = OrderedDict()

    def _plan(
        self, mixtures: Sequence[Mixture], counts: Sequence[int]
    ) -> list[tuple[torch.nn.Module, Hook]]:
        recipes = [mixture.recipe(self._component) for mixture in mixtures]
        if not any(recipes):
            return []
        key = tuple(recipes), tuple(counts)
        plans = self._plans
        plan = plans.pop(key, None)
        if plan is None:
            plan = self._make_plan(mixtures, counts, is_uniform=len(set(recipes)) == 1)
        plans[key] = plan
        if len(plans) > _MOST_PLANS:
            plans.popitem(last=False)
        return plan

    def _make_plan(
        self, mixtures: Sequence[Mixture], counts: Sequence[int], *, is_uniform: bool
    ) -> list[tuple[torch.nn.Module, Hook]]:
        layers = {
            name: self._module.get_submodule(name)
            for mixture in mixtures
            for lora, _ in mixture.of(self._component)
            for name in lora.factors[self._component]
        }
        if is_uniform:
            joined = {name: self._join(mixtures[0], name) for name in layers}
            return [(layers[name], _hook_for_all(each)) for name, each in joined.items() if each]
        return [
            (
                layer,
                _hook_for_each(
                    [self._join(mixture, name) for mixture in mixtures], counts, _device_of(layer)
                ),
            )
            for name, layer in layers.items()
        ]

    def _join(self, mixture: Mixture, layer: str) -> Factors | None:
        """Join the factors of all adapters of a mixture for a layer; None if it has none there."""
        found = [
            (lora.factors[self._component][layer], scale)
            for lora, scale in mixture.of(self._component)
            if layer in lora.factors[self._component]
        ]
        if not found:
            return None
        downs = [factors.down for factors, _ in found]
        ups = [factors.up * scale for factors, scale in found]
        return Factors(torch.cat(downs), torch.cat(ups, 1))


def _device_of(layer: torch.nn.Module) -> torch.device:
    return next(layer.parameters()).device


def _hook_for_all(factors: Factors) -> Hook:
    """Return a hook that adds the same factors to all rows."""
    down, up = factors

    def add(layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if down.ndim == 2:
            return output + linear(linear(inputs[0], down), up)
        low = conv2d(inputs[0], down, None, layer.stride, layer.padding, layer.dilation)
        return output + conv2d(low, up)

    return add


def _hook_for_each(
    joined: Sequence[Factors | None], counts: Sequence[int], device: torch.device
) -> Hook:
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
    index = None if len(rows) == row_count else torch.tensor(rows, device=device)

    def add(layer: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        [given] = inputs
        if len(given) != row_count:
            raise ValueError(f"{type(layer).__name__} got {len(given)} rows, not {row_count}")
        chosen = given if index is None else given.index_select(0, index)
        multiply = _multiply if down.ndim == 3 else _convolve
        added = multiply(layer, chosen, down, up, share).view(-1, *output.shape[1:])
        return output + added if index is None else output.index_add(0, index, added)

    return add


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
