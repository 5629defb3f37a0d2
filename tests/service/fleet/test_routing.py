"""The engine host that a router prefers."""

import pickle
from collections.abc import Mapping

import pytest

from safelight_service.fleet.routing import Loads, Route, lane_of, rank, take_larger

SMALL, LARGE = lane_of("shapes", 64, 64), lane_of("shapes", 256, 256)
OTHER = lane_of("toys", 64, 64)


@pytest.mark.parametrize(
    ("hosts", "route", "first"),
    [
        ({"a": {SMALL: 1}, "b": {}}, Route(SMALL), "b"),  # idle
        ({"a": {OTHER: 1}, "b": {SMALL: 1}}, Route(SMALL), "b"),  # can be merged there
        ({"a": {OTHER: 1}, "b": {SMALL: 4}}, Route(SMALL), "a"),  # would wait longer there
        ({"a": {LARGE: 2}, "b": {SMALL: 8}}, Route(LARGE), "b"),  # much less work
        ({"a": {LARGE: 2}, "b": {SMALL: 8}}, Route(), "b"),  # a call that costs little
        ({"a": {}, "b": {LARGE: 9}}, Route(SMALL, excluded=frozenset("a")), "b"),
        ({"a": {}}, Route(SMALL, excluded=frozenset("a")), "a"),  # there is no other
    ],
)
def test_a_call_goes_where_it_costs_least(
    hosts: Mapping[str, Loads], route: Route, first: str
) -> None:
    assert rank(hosts, route)[0] == first


def test_calls_sent_since_the_last_report_count() -> None:
    assert take_larger({SMALL: 2}, {SMALL: 3, LARGE: 1}) == {SMALL: 3, LARGE: 1}


def test_the_choice_stays_with_the_caller() -> None:
    route = Route(SMALL, 2, frozenset("b"), host="a")
    assert pickle.loads(pickle.dumps(route)) == Route(SMALL, 2, frozenset("b"))
