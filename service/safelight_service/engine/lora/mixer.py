"""Mixer: adds the adapters of several images to one forward of a component.

Each image has its own mixture. The low-rank factors of its adapters are joined to one pair for each
layer, and the pairs of all images, padded to the longest rank, run as batched products. Effects of
other kinds run for the rows of one image at a time. The layers themselves stay as they are: hooks
add to their outputs, and are removed after the forward.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from safelight_service.engine.lora.effects import Effect, Factors
from safelight_service.engine.lora.hooks import (
    Hook,
    hook_for_all,
    hook_for_each,
    hook_with_others,
)
from safelight_service.engine.lora.lora import Mixture

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
            for name in lora.effects[self._component]
        }
        if is_uniform:
            mixtures, counts = mixtures[:1], ()
        return [
            (layer, self._make_hook(name, layer, mixtures, counts))
            for name, layer in layers.items()
        ]

    def _make_hook(
        self, name: str, layer: torch.nn.Module, mixtures: Sequence[Mixture], counts: Sequence[int]
    ) -> Hook:
        """Return the hook of a layer. Without counts, the only mixture affects all rows."""
        parts = [
            [
                (lora.effects[self._component][name], scale)
                for lora, scale in mixture.of(self._component)
                if name in lora.effects[self._component]
            ]
            for mixture in mixtures
        ]
        joined = [_join(each) for each in parts]
        firsts = [sum(counts[:number]) for number in range(len(counts))]
        rows = [slice(first, first + count) for first, count in zip(firsts, counts, strict=True)]
        others = [
            (place, effect.prepare(layer, scale))
            for place, each in zip(rows or [slice(None)], parts, strict=True)
            for effect, scale in each
            if not isinstance(effect, Factors)
        ]
        hook = None
        if counts and any(joined):
            hook = hook_for_each(joined, counts)
        elif joined[0] is not None:
            hook = hook_for_all(joined[0])
        return hook_with_others(hook, others, sum(counts)) if others or hook is None else hook


def _join(parts: Sequence[tuple[Effect, float]]) -> Factors | None:
    """Join the factors of all LoRAs of an image for a layer; None if it has none there."""
    found = [(effect, scale) for effect, scale in parts if isinstance(effect, Factors)]
    if not found:
        return None
    downs = [factors.down for factors, _ in found]
    ups = [factors.up * scale for factors, scale in found]
    return Factors(torch.cat(downs), torch.cat(ups, 1))
