"""Lora: an adapter in memory, and mixtures of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from safelight_service.engine.lora.effects import Effect

Recipe = tuple[tuple[str, float], ...]
"""Digests and scales of the adapters that affect a component; equal for equal effects."""


@dataclass(frozen=True, eq=False)
class Lora:
    """An adapter: effects by component, such as `unet`, and by the layer's name in it."""

    name: str
    digest: str
    """Digest of its files; equal for adapters with equal effects."""
    effects: Mapping[str, Mapping[str, Effect]]

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        layers = [layer for component in self.effects.values() for layer in component.values()]
        return sum(tensor.nbytes for layer in layers for tensor in layer)


@dataclass(frozen=True)
class Mixture:
    """Adapters of an image, with their scales; their effects add up."""

    parts: tuple[tuple[Lora, float], ...] = ()

    def of(self, component: str) -> tuple[tuple[Lora, float], ...]:
        """Return the parts that affect a component."""
        return tuple(
            (lora, scale) for lora, scale in self.parts if scale and component in lora.effects
        )

    def recipe(self, component: str) -> Recipe:
        """Return a short key of the effect on a component; empty without any."""
        return tuple((lora.digest, scale) for lora, scale in self.of(component))


NO_ADAPTERS = Mixture()
