"""Queue bounds: which jobs may wait, and which leave for others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from safelight_service.core.errors import QueueFullError
from safelight_service.core.tenant import Tenant
from safelight_service.engine.queue_bounds import QueueBounds


@dataclass(frozen=True)
class Waiting:
    """A job in the queue; its name is its tenant's letter and a number."""

    name: str
    work_s: float | None = 1.0
    estimated_wait_s: float | None = None
    is_abandoned: bool = False
    weight: float = 1.0

    @property
    def tenant(self) -> Tenant:
        return Tenant(self.name[0], self.weight)


def jobs(names: str, weight: float = 1.0) -> list[Waiting]:
    return [Waiting(name, weight=weight) for name in names.split()]


RUNNING = jobs("a0")


def admit(bounds: QueueBounds, job: Waiting, waiting: Sequence[Waiting]) -> str:
    """Return the names of the jobs that leave, or "refused"."""
    try:
        return " ".join(each.name for each in bounds.admit(job, waiting, RUNNING))
    except QueueFullError:
        return "refused"


@pytest.mark.parametrize(
    ("waiting", "name", "expected"),
    [
        ("a1 a2 a3", "a4", ""),
        ("a1 a2 a3 a4", "a5", "refused"),  # a single tenant: as without shares
        ("a1 a2 a3 a4", "b1", "a4"),
        ("a1 a2 b1 a3", "b2", "a3"),
        ("a1 b1 a2 b2", "b3", "refused"),  # both have their share
        ("a1 b1 a2 b2", "c1", "b2"),  # each may have one
        ("a1 b1 c1 d1", "e1", "refused"),  # but not one of the last of another
        ("a1 a2 b1 b2", "a3", "refused"),
        ("b1 b2 b3 c1", "a1", "b3"),
    ],
)
def test_a_full_queue_has_room_for_a_tenant_below_its_share(
    waiting: str, name: str, expected: str
) -> None:
    assert admit(QueueBounds(4), Waiting(name), jobs(waiting)) == expected


@pytest.mark.parametrize(("weight", "expected"), [(3.0, 6), (1.0, 4), (0.25, 1)])
def test_shares_of_the_queue_are_in_proportion_to_the_weights(weight: float, expected: int) -> None:
    bounds = QueueBounds(8)
    waiting = [Waiting(f"a{number}") for number in range(8)]
    for number in range(8):
        job = Waiting(f"b{number}", weight=weight)
        try:
            leaving = bounds.admit(job, waiting, RUNNING)
        except QueueFullError:
            break
        waiting = [each for each in waiting if each not in leaving] + [job]
    assert sum(job.tenant.name == "b" for job in waiting) == expected
    assert len(waiting) == 8


def test_abandoned_work_leaves_first() -> None:
    waiting = [Waiting("a1"), Waiting("a2", is_abandoned=True), Waiting("a3"), Waiting("a4")]
    assert admit(QueueBounds(4), Waiting("b1"), waiting) == "a2"


@pytest.mark.parametrize(
    ("waiting_s", "job", "expected"),
    [
        ([], Waiting("a1", 500.0), ""),  # nothing waits
        ([50.0, 40.0], Waiting("a9", 10.0), ""),
        ([50.0, 40.0], Waiting("a9", 11.0), "refused"),
        ([50.0, None], Waiting("a9", None), ""),  # nothing is known
        ([50.0, 40.0], Waiting("b1", 11.0), "a1"),
        ([30.0, 30.0, 30.0], Waiting("b1", 50.0), "a2 a1"),
        ([30.0, 30.0, 30.0], Waiting("b1", 71.0), "refused"),  # beyond its own share
    ],
)
def test_the_queue_is_bounded_by_device_seconds(
    waiting_s: Sequence[float | None], job: Waiting, expected: str
) -> None:
    waiting = [Waiting(f"a{number}", work_s) for number, work_s in enumerate(waiting_s)]
    assert admit(QueueBounds(9, 100.0), job, waiting) == expected


@pytest.mark.parametrize(
    ("bounds", "message", "retry_after_s"),
    [
        (QueueBounds(3), "3 generations wait already; try again later", 4.0),
        (
            QueueBounds(9, 100.0),
            "the waiting generations need 90.0 s and this one 50.0 s, of 100 s for the queue; "
            "try again later",
            8.0,
        ),
    ],
)
def test_a_refusal_says_which_bound_was_met_and_when_there_is_room(
    bounds: QueueBounds, message: str, retry_after_s: float
) -> None:
    """By seconds, two of the three have to start first."""
    waiting = [Waiting("a1", 30.0, 4.0), Waiting("a2", 30.0, 8.0), Waiting("a3", 30.0, 12.0)]
    with pytest.raises(QueueFullError) as raised:
        bounds.admit(Waiting("a4", 50.0), waiting, RUNNING)
    assert str(raised.value) == message
    assert raised.value.retry_after_s == retry_after_s


def test_without_a_forecast_the_retry_delay_is_a_second() -> None:
    with pytest.raises(QueueFullError) as raised:
        QueueBounds(1).admit(Waiting("a2"), jobs("a1"), RUNNING)
    assert raised.value.retry_after_s == 1.0


def test_a_job_that_leaves_learns_why_and_when_to_come_back() -> None:
    error = QueueBounds(4, math.inf).explain(Waiting("a1", estimated_wait_s=7.0))
    assert "a caller with less than its share of it came" in str(error)
    assert error.retry_after_s == 7.0


def test_an_idle_device_takes_one_more() -> None:
    assert not QueueBounds(0).admit(Waiting("a1"), [], [])
    with pytest.raises(QueueFullError):
        QueueBounds(0).admit(Waiting("a1"), [], RUNNING)
