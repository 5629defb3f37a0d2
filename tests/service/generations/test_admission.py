"""Admission: a caller's models, rate and number of generations at once."""

import time
from contextlib import ExitStack

import pytest

from safelight_service.auth.tokens import Caller, digest_token
from safelight_service.core.errors import (
    ModelForbiddenError,
    RateLimitedError,
    TooManyGenerationsError,
)
from safelight_service.generations.admission import Admission


def caller(
    name: str = "billing",
    models: tuple[str, ...] | None = None,
    requests_per_minute: int | None = None,
    concurrent: int | None = None,
) -> Caller:
    return Caller(
        name=name,
        sha256=digest_token(name),
        models=models,
        requests_per_minute=requests_per_minute,
        concurrent=concurrent,
    )


def admit(admission: Admission, caller: Caller | None, model: str = "shapes") -> None:
    """Let a generation start and end."""
    with admission.admit(caller, model):
        pass


def test_without_tokens_everything_is_admitted() -> None:
    admission = Admission()
    with admission.admit(None, "shapes"), admission.admit(None, "sdxl"):
        pass


def test_another_model_is_refused_with_those_that_are_allowed() -> None:
    with pytest.raises(ModelForbiddenError, match="'sdxl'; choose one of: shapes, toys"):
        admit(Admission(), caller(models=("shapes", "toys")), "sdxl")


class Clock:
    """Clock that tests set."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_caller_over_its_rate_gets_a_retry_delay_until_the_window_has_slid() -> None:
    clock = Clock()
    admission, limited = Admission(clock=clock), caller(requests_per_minute=2)
    for clock.now_s in (1000.0, 1020.0):
        admit(admission, limited)
    for clock.now_s, delay_s in ((1020.0, 40.0), (1059.0, 1.0)):  # a refusal does not count
        with pytest.raises(RateLimitedError, match="'billing' allows 2 generations a") as raised:
            admit(admission, limited)
        assert raised.value.retry_after_s == delay_s
    admit(admission, caller("other", requests_per_minute=2))
    clock.now_s = 1060.0
    admit(admission, limited)
    with pytest.raises(RateLimitedError) as raised:
        admit(admission, limited)
    assert raised.value.retry_after_s == 20.0


def test_a_rate_that_was_lowered_holds_until_as_few_are_in_the_window() -> None:
    clock = Clock()
    admission = Admission(clock=clock)
    for clock.now_s in (1000.0, 1010.0, 1020.0):
        admit(admission, caller(requests_per_minute=3))
    with pytest.raises(RateLimitedError) as raised:
        admit(admission, caller(requests_per_minute=1))
    assert raised.value.retry_after_s == 60.0
    clock.now_s = 1080.0
    admit(admission, caller(requests_per_minute=1))


def test_the_wall_clock_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set back an hour, it would extend the delay by as much."""
    admission, limited = Admission(), caller(requests_per_minute=1)
    admit(admission, limited)
    hour_ago = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: hour_ago)
    with pytest.raises(RateLimitedError) as raised:
        admit(admission, limited)
    assert 0 < raised.value.retry_after_s <= 60


def test_a_caller_runs_at_most_as_many_as_it_may_until_one_ends() -> None:
    admission, limited = Admission(), caller(concurrent=2)
    with ExitStack() as running:
        running.enter_context(admission.admit(limited, "shapes"))
        with admission.admit(limited, "shapes"):
            with pytest.raises(
                TooManyGenerationsError, match="'billing' allows 2 generations at once"
            ):
                admit(admission, limited)
            admit(admission, caller("other", concurrent=1))
        admit(admission, limited)


def test_a_generation_that_fails_no_longer_counts_as_running() -> None:
    admission, limited = Admission(), caller(concurrent=1)
    with pytest.raises(ZeroDivisionError), admission.admit(limited, "shapes"):
        raise ZeroDivisionError
    admit(admission, limited)


def test_what_is_refused_does_not_count_towards_the_rate() -> None:
    admission, limited = Admission(), caller(requests_per_minute=2, concurrent=1)
    with admission.admit(limited, "shapes"), pytest.raises(TooManyGenerationsError):
        admit(admission, limited)
    admit(admission, limited)
