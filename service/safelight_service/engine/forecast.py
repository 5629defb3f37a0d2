"""Forecast: when generations will start and finish, by playing the schedule through."""

from collections.abc import Sequence
from dataclasses import dataclass

from safelight_service.engine.lane import Lane


@dataclass(slots=True)
class Plan:
    """One image that is to be made, or half made; seconds count from now.

    `starts_s` and `finishes_s` are filled in by `play`; None where nothing like it was measured.
    """

    lane: Lane
    row_count: int
    forwards_left: float
    is_started: bool
    starts_s: float | None = None
    finishes_s: float | None = None


def play(plans: Sequence[Plan]) -> None:
    """Fill in when each of the plans, given in their order, starts and finishes."""
    now = 0.0
    pending = list(plans)
    while pending:
        members = choose_members(pending)
        lane = members[0].lane
        seconds = lane.forward_s(sum(plan.row_count for plan in members))
        if seconds is None:
            return
        for plan in members:
            if plan.starts_s is None:
                plan.starts_s = now
                now += 0 if plan.is_started else lane.before_steps.value or 0
        forwards = min(plan.forwards_left for plan in members)
        now += forwards * seconds
        for plan in members:
            plan.forwards_left -= forwards
            if plan.forwards_left <= 0:
                now += lane.after_steps.value or 0
                plan.finishes_s = now
        pending = [plan for plan in pending if plan.finishes_s is None]


def choose_members(plans: Sequence[Plan]) -> list[Plan]:
    """Return those that share the next forward with the first one."""
    lane = plans[0].lane
    members: list[Plan] = []
    row_count = 0
    for plan in plans:
        if plan.lane is not lane:
            continue
        row_count += plan.row_count
        if not lane.has_room(len(members) + 1, row_count):
            break
        members.append(plan)
    return members
