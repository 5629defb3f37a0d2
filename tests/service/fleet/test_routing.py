"""The engine host that a router prefers."""

import pickle
from collections.abc import Mapping

import pytest

from safelight_service.core.events import Progress
from safelight_service.fleet.routing import Load, Loads, Route, add, lane_of, rank
from support.fleet.simulated_fleet import (
    Router,
    SimulatedFleet,
    Traffic,
    choose_least_cost,
    make_round_robin,
)

SMALL, LARGE = lane_of("shapes", 64, 64), lane_of("shapes", 256, 256)
OTHER = lane_of("toys", 64, 64)


def call(lane: str = SMALL, excluded: str = "", only: str = "") -> Route:
    return Route(lane, 1, 20, frozenset(excluded), only)


@pytest.mark.parametrize(
    ("hosts", "route", "first"),
    [
        ({"a": {SMALL: (1, 20)}, "b": {}}, call(), "b"),  # idle
        ({"a": {OTHER: (1, 20)}, "b": {SMALL: (1, 20)}}, call(), "b"),  # can be merged there
        ({"a": {OTHER: (1, 20)}, "b": {SMALL: (4, 20)}}, call(), "a"),  # would wait longer there
        ({"a": {LARGE: (1, 20)}, "b": {SMALL: (8, 20)}}, call(), "b"),  # much less work
        ({"a": {LARGE: (1, 20)}, "b": {SMALL: (8, 20)}}, call(LARGE), "a"),  # would delay more
        ({"a": {SMALL: (3, 20)}, "b": {SMALL: (3, 2)}}, call(), "b"),  # ends sooner
        ({"a": {LARGE: (2, 20)}, "b": {SMALL: (8, 20)}}, Route(), "b"),  # costs little
        ({"a": {}, "b": {LARGE: (9, 20)}}, call(excluded="a"), "b"),
        ({"a": {}}, call(excluded="a"), "a"),  # there is no other
        ({"a": {}, "b": {LARGE: (9, 20)}}, call(only="b"), "b"),
        ({"a": {}}, call(only="b"), "a"),  # has gone
    ],
)
def test_a_call_goes_where_it_adds_least(
    hosts: Mapping[str, Loads], route: Route, first: str
) -> None:
    assert rank(hosts, route)[0] == first


def test_images_of_a_lane_are_added_up() -> None:
    loads: dict[str, Load] = {}
    add(loads, SMALL, 1, 20)
    add(loads, SMALL, 3, 8)
    add(loads, LARGE, 1, 5)
    assert loads == {SMALL: (4, 11), LARGE: (1, 5)}


def test_a_route_knows_the_steps_that_are_left() -> None:
    route = Route(SMALL, image_count=2, step_count=20)
    assert route.steps_left == 20
    route.note(Progress(10, 20, 1, 0.0, 0.0))
    assert route.steps_left == 15


def test_the_choice_stays_with_the_caller() -> None:
    route = Route(SMALL, 2, 20, frozenset("b"), host="a", is_host_leaving=True, left={0: 1})
    assert pickle.loads(pickle.dumps(route)) == Route(SMALL, 2, 20, frozenset("b"))


def test_mixed_sizes_merge_more_and_wait_less_than_in_turn() -> None:
    sizes = ((256, 256), (384, 168), (168, 384), (320, 208), (208, 320), (296, 224))

    def run(router: Router) -> tuple[float, float]:
        """Return the latency that 1 in 100 exceeds, in seconds, and the images of all forwards."""
        calls = SimulatedFleet(3, Traffic(dict.fromkeys(sizes, 1.0), 0.04), router).run_open(4, 500)
        ordered = sorted(call.latency_s for call in calls)
        return ordered[-len(ordered) // 100], sum(call.image_count for call in calls)

    ours, in_turn = run(choose_least_cost), run(make_round_robin())
    assert ours[0] < 0.75 * in_turn[0]
    assert ours[1] > 1.05 * in_turn[1]
