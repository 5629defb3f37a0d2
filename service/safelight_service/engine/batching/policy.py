"""Order: which generations come first when the device cannot serve all at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Priority:
    """What a generation brings forward: when it came, and what it still needs, in seconds."""

    arrived_at: float
    waited_s: float
    find_remaining_s: Callable[[], float]
    """Worked out only where it is asked for: it is asked of every job at every step."""


SchedulingPolicy = Callable[[Priority], float]
"""Ranks a claim; the lowest is served first, and what can be merged with it rides along."""

AGEING = 0.5
"""Seconds of waiting that outweigh one of remaining work, so that long ones are served at last."""


def first_come_first_served(claim: Priority) -> float:
    """Rank by arrival. What was passed by rides along with others, or becomes the oldest."""
    return claim.arrived_at


def shortest_remaining_first(claim: Priority) -> float:
    """Rank by the work that is left, less for every second waited: lower mean, longer tail."""
    return claim.find_remaining_s() - AGEING * claim.waited_s


POLICIES: Mapping[str, SchedulingPolicy] = {
    "first_come": first_come_first_served,
    "shortest_remaining": shortest_remaining_first,
}
