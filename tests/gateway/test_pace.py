"""The pace: bursts now, and the rest at the rate."""

import pytest

from safelight_gateway.pace import Pace


def test_a_holder_has_a_burst_and_then_its_rate() -> None:
    now_s = 0.0
    pace = Pace(10.0, burst=3, clock=lambda: now_s)
    assert [pace.delay_s("a") for _ in range(3)] == pytest.approx([0, 0, 0])
    assert [pace.delay_s("a") for _ in range(2)] == pytest.approx([0.1, 0.2])
    assert pace.delay_s("b") == 0
    now_s = 0.2
    assert pace.delay_s("a") == pytest.approx(0.1)
    now_s = 60.0
    assert [pace.delay_s("a") for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


def test_turns_that_are_too_far_away_are_refused_and_not_taken() -> None:
    now_s = 0.0
    pace = Pace(10.0, burst=3, longest_s=0.2, clock=lambda: now_s)
    taken = [pace.delay_s("a") for _ in range(1000)]
    assert taken[:5] == pytest.approx([0, 0, 0, 0.1, 0.2])
    assert set(taken[5:]) == {None}
    now_s = 0.1
    assert pace.delay_s("a") == pytest.approx(0.2)
    assert pace.delay_s("a") is None


def test_holders_that_have_left_are_forgotten() -> None:
    now_s = 0.0
    pace = Pace(10.0, burst=1, clock=lambda: now_s)
    for number in range(5000):
        now_s += 1.0
        assert pace.delay_s(str(number)) == pytest.approx(0)
    assert len(pace) < 5000
