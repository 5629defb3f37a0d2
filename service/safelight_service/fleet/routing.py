"""Routing: which engine host takes a call, so that requests which can be merged meet.

A host serves its lanes in turns, and shares each step among the images of a lane. So one more image
of a size that it works on costs less than one of a new size. A call goes to the host on which it
adds least to the time of all images there, its own included.
"""

import random
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safelight_service.core.events import Event, Progress

Lane = str
"""Model and size: images of one lane can share a forward."""

Load = tuple[int, float]
"""Images of a lane, and the steps that each has left, on average."""

Loads = Mapping[Lane, Load]
"""Load of a host, by its lanes. Built of plain types, which Serve's controller can unpickle."""

FRONT = uuid.uuid4().hex
"""Name of this process in the loads that hosts report."""

MERGED_COST = 0.4
"""Cost of one more image in a lane, relative to the first."""

CHOICES = 4
"""Hosts that are compared; with more, several fronts would all send their calls to the same one."""


@dataclass(slots=True, weakref_slot=True)
class Route:
    """Facts of a call for a router, and its decision."""

    lane: Lane = ""
    """Empty for calls that cost little."""
    image_count: int = 1
    step_count: int = 1
    excluded: frozenset[str] = field(default_factory=frozenset)
    """Hosts that have just failed."""
    only: str = ""
    """The host that is meant; empty for any."""
    host: str = ""
    """The host that was chosen; set by the router, in the caller's process."""
    is_host_leaving: bool = False
    """Whether that host stops or has died; set by the router, too."""
    left: dict[int, int] = field(default_factory=dict)
    """Steps that each image has left, by its index, once it has begun."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out what only the caller needs."""
        return Route, (self.lane, self.image_count, self.step_count, self.excluded, self.only)

    @property
    def steps_left(self) -> float:
        """Steps that each image has left, on average."""
        waiting_count = self.image_count - len(self.left)
        return (waiting_count * self.step_count + sum(self.left.values())) / self.image_count

    def note(self, event: Event) -> None:
        """Note the progress of an image."""
        if isinstance(event, Progress):
            self.left[event.image_index] = event.step_count - event.step


def lane_of(model: str, width: int, height: int) -> Lane:
    """Return the lane of a model and a size in pixels."""
    return f"{width}x{height} {model}"


def rank(hosts: Mapping[str, Loads], route: Route) -> list[str]:
    """Return hosts by falling preference; those excluded only if there are no others."""
    if route.only in hosts:
        return [route.only]
    names = [name for name in hosts if name not in route.excluded] or list(hosts)
    sample = random.sample(names, min(CHOICES, len(names)))
    return sorted(sample, key=lambda name: find_added_cost(hosts[name], route))


def find_added_cost(loads: Loads, route: Route) -> float:
    """Return the time that a call adds to all images of a host and takes for its own.

    Unit: the time of a step of one pixel, alone on the device.
    """
    size, images, steps = _size_of(route.lane), route.image_count, route.step_count
    alone = size * (1 + MERGED_COST * (images - 1))
    merged = size * MERGED_COST * images
    merged_steps = loads.get(route.lane, (0, 0.0))[1]
    cost = images * steps * alone
    for lane, (count, left) in loads.items():
        shared = min(left, steps)
        if lane == route.lane:
            cost += shared * (images * count * size * MERGED_COST + count * merged)
        else:
            turn = _size_of(lane) * (1 + MERGED_COST * (count - 1))
            cheap = min(shared, merged_steps)
            cost += images * shared * turn + count * (cheap * merged + (shared - cheap) * alone)
    return cost


def add(loads: dict[Lane, Load], lane: Lane, image_count: int, steps_left: float) -> None:
    """Add images to loads."""
    count, left = loads.get(lane, (0, 0.0))
    total = count + image_count
    loads[lane] = total, (count * left + image_count * steps_left) / total


def _size_of(lane: Lane) -> int:
    """Return the pixels of an image; 0 for calls that cost little."""
    width, _, height = lane.partition(" ")[0].partition("x")
    return int(width) * int(height) if height else 0
