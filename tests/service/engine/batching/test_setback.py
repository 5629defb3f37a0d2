import pytest

from safelight_service.engine.batching.setback import FIRST_TRIAL_S, Setback
from support.thread_clock import set_clock


class Clock:
    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        set_clock(patch, lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_everything_is_allowed_before_the_first_failure() -> None:
    assert Setback().allows(1000)


def test_twice_as_much_is_tried_after_a_while(clock: Clock) -> None:
    setback = Setback()
    setback.limit(2)
    assert [setback.allows(quantity) for quantity in (2, 3)] == [True, False]
    clock.now = FIRST_TRIAL_S
    assert [setback.allows(quantity) for quantity in (4, 5)] == [True, False]


def test_a_trial_that_works_allows_the_next_one(clock: Clock) -> None:
    setback = Setback()
    setback.limit(2)
    clock.now = FIRST_TRIAL_S
    for quantity in (4, 8, 16):
        assert setback.allows(quantity)
        setback.allow(quantity)


def test_trials_that_fail_become_rare(clock: Clock) -> None:
    """A device that always lacks the memory loses at most one forward an hour."""
    setback = Setback()
    setback.limit(2)
    trials = 0
    for _ in range(24 * 3600):
        clock.now += 1
        if setback.allows(4):
            trials += 1
            setback.limit(2)
    assert 24 <= trials <= 32


def test_failures_of_one_trial_count_once(clock: Clock) -> None:
    setback = Setback()
    for most in (8, 4, 2):
        setback.limit(most)
    clock.now = FIRST_TRIAL_S
    assert setback.allows(4)
