import statistics
from collections.abc import Mapping, Sequence

import pytest

from safelight_service.core.tenant import Tenant
from safelight_service.engine.batching.estimates.cost_model import CostModel, Demand
from safelight_service.engine.batching.estimates.forecast import Plan, simulate


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


def take_turns(plans: Sequence[Plan], virtual_s: Mapping[str, float]) -> list[float]:
    """Return the ends of plans that run alone, in turns of a single forward of a second."""
    shares, left = dict(virtual_s), [plan.forwards_left for plan in plans]
    ends = [0.0] * len(plans)
    for now in range(1, round(sum(left)) + 1):
        ranks = [
            (plan.is_abandoned, shares[plan.tenant.name], number)
            for number, plan in enumerate(plans)
            if left[number]
        ]
        first = min(ranks)[2]
        left[first] -= 1
        shares[plans[first].tenant.name] += 1 / plans[first].tenant.weight
        if not left[first]:
            ends[first] = now
    return ends


@pytest.mark.parametrize(
    "virtual_s", [{"a": 0.0, "b": 0.0, "c": 0.0}, {"a": 9.0, "b": 0.0, "c": 30.0}]
)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 2.0, 4.0), (4.0, 1.0, 0.25)])
@pytest.mark.parametrize("counts", [(64, 1, 1), (20, 20, 20), (1, 10, 50)])
def test_tenants_take_turns_in_the_forecast(
    virtual_s: dict[str, float], weights: Sequence[float], counts: Sequence[int]
) -> None:
    """Ends differ from those of turns of one forward by an eighth, mostly."""
    cost_model = make_cost_model({1: 1.0}, most_members=1)
    plans = [
        Plan(cost_model, 1, 20, is_started=False, tenant=Tenant(name, weight))
        for name, weight, count in zip("abc", weights, counts, strict=True)
        for _ in range(count)
    ]
    expected = take_turns(plans, virtual_s)
    simulate(plans, virtual_s)
    ratios = [(plan.finishes_s or 0.0) / end for plan, end in zip(plans, expected, strict=True)]
    assert statistics.quantiles(map(abs, (ratio - 1 for ratio in ratios)), n=10)[8] < 0.15
    assert max(ratios) < 1.6
    assert min(ratios) > 0.6


def test_abandoned_work_comes_last_in_the_forecast() -> None:
    cost_model = make_cost_model({1: 1.0}, most_members=1)
    plans = [
        Plan(cost_model, 1, 4, is_started=True, is_abandoned=True),
        Plan(cost_model, 1, 4, is_started=True),
    ]
    simulate(plans)
    assert [plan.finishes_s for plan in plans] == [8.0, 4.0]
