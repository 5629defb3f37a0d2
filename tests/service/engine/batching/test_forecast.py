import pytest

from safelight_service.engine.batching.cost_model import CostModel, Demand
from safelight_service.engine.batching.forecast import Plan, simulate


def make_cost_model(seconds: dict[int, float], most_members: int = 2) -> CostModel:
    cost_model = CostModel((64, 64), most_members)
    for row_count, each in seconds.items():
        cost_model.note_forward(row_count, each)
    return cost_model


def test_a_lane_knows_widths_between_and_beyond_those_measured() -> None:
    cost_model = make_cost_model({2: 1.0, 4: 1.5, 8: 3.0})
    assert cost_model.forward_s(1) == 1.0
    assert cost_model.forward_s(2) == 1.0
    assert cost_model.forward_s(3) == 1.25
    assert cost_model.forward_s(6) == 2.25
    assert cost_model.forward_s(16) == 6.0
    assert make_cost_model({}).forward_s(1) is None


def test_newer_measurements_weigh_more() -> None:
    cost_model = make_cost_model({1: 1.0})
    for _ in range(20):
        cost_model.note_forward(1, 2.0)
    assert cost_model.forward_s(1) == pytest.approx(2.0, rel=0.02)


def test_one_disturbed_measurement_counts_little() -> None:
    cost_model = make_cost_model({1: 1.0})
    cost_model.note_forward(1, 60.0)
    assert cost_model.forward_s(1) == pytest.approx(1.25)


def test_demand_is_guessed_until_it_has_been_seen() -> None:
    cost_model = make_cost_model({})
    assert cost_model.demand(is_guided=True) == Demand(1, 2)
    cost_model.note_demand(Demand(2, 1), is_guided=True)
    assert cost_model.demand(is_guided=True) == Demand(2, 1)
    assert cost_model.demand(is_guided=False) == Demand(1, 1)


def test_schedule_is_played_through_to_the_last_plan() -> None:
    """Two run at a time: the third starts after the first ends, the fourth after the second."""
    cost_model = make_cost_model({1: 1.0, 2: 1.5})
    cost_model.decode.note(0.5)
    plans = [Plan(cost_model, 1, forwards, is_started=False) for forwards in (2, 4, 10)]
    simulate(plans)
    assert plans[0].starts_s == plans[1].starts_s == 0
    assert plans[0].finishes_s == 2 * 1.5 + 0.5
    assert plans[2].starts_s == plans[0].finishes_s
    assert plans[1].finishes_s == 3.5 + 2 * 1.5 + 0.5
    assert plans[2].finishes_s == 7 + 8 * 1.0 + 0.5


def test_another_lane_waits_for_the_first_and_costs_what_it_costs() -> None:
    first, second = make_cost_model({1: 1.0}), make_cost_model({1: 3.0})
    plans = [Plan(first, 1, 2, is_started=True), Plan(second, 1, 2, is_started=False)]
    simulate(plans)
    assert (plans[1].starts_s, plans[1].finishes_s) == (2.0, 8.0)


def test_nothing_is_forecast_behind_what_was_never_measured() -> None:
    known, unknown = make_cost_model({1: 1.0}, most_members=1), make_cost_model({})
    plans = [
        Plan(known, 1, 1, is_started=False),
        Plan(unknown, 1, 1, is_started=False),
        Plan(known, 1, 1, is_started=False),
    ]
    simulate(plans)
    assert plans[0].finishes_s == 1.0
    assert plans[1].starts_s is None
    assert plans[1].finishes_s is None
