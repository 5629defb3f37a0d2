"""Routing: which engine host takes a call, so that requests which can be merged meet.

A host shares each step among the images of one model and size. So one more image of a size that it
works on costs less than one of a new size.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Lane = str
"""Model and size: images of one lane can share a forward."""

Loads = Mapping[Lane, int]
"""Images of a host, by their lanes."""

MERGED_COST = 0.4
"""Cost of one more image in a lane, relative to the first."""

CHOICES = 4
"""Hosts that are compared; more would all send their calls to the same one."""


@dataclass(slots=True)
class Route:
    """Facts of a call for a router, and its decision."""

    lane: Lane = ""
    """Empty for calls that cost little."""
    image_count: int = 1
    excluded: frozenset[str] = field(default_factory=frozenset)
    """Hosts that have just failed."""
    host: str = ""
    """The host that was chosen; set by the router, in the caller's process."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out the choice, which only the caller needs."""
        return Route, (self.lane, self.image_count, self.excluded)


def lane_of(model: str, width: int, height: int) -> Lane:
    """Return the lane of a model and a size in pixels."""
    return f"{width}x{height} {model}"


def rank(hosts: Mapping[str, Loads], route: Route) -> list[str]:
    """Return hosts by falling preference; those excluded only if there are no others."""
    names = [name for name in hosts if name not in route.excluded] or list(hosts)
    sample = random.sample(names, min(CHOICES, len(names)))
    return sorted(sample, key=lambda name: cost_with(hosts[name], route))


def cost_with(loads: Loads, route: Route) -> float:
    """Return the relative cost of a step of a host after it has taken a call."""
    counts = dict(loads)
    if route.lane:
        counts[route.lane] = counts.get(route.lane, 0) + route.image_count
    return sum(_cost_of(lane, count) for lane, count in counts.items())


def _cost_of(lane: Lane, count: int) -> float:
    width, _, height = lane.partition(" ")[0].partition("x")
    return int(width) * int(height) * (1 + MERGED_COST * (count - 1)) if count else 0.0


def take_larger(reported: Loads, sent: Loads) -> Loads:
    """Return the larger count of each lane; reports are late, and omit what was sent since."""
    lanes = {*reported, *sent}
    return {lane: max(reported.get(lane, 0), sent.get(lane, 0)) for lane in lanes}
