"""The limit on open files is raised as far as the system allows."""

import resource
from collections.abc import Iterator

import pytest

from safelight_settings import raise_descriptor_limit


@pytest.fixture
def soft_limit() -> Iterator[int]:
    """A low limit on open files, which the process may raise."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_to_what_the_system_allows(soft_limit: int) -> None:
    raise_descriptor_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft == hard > soft_limit


@pytest.mark.parametrize(("most", "raised"), [(1 << 16, [1 << 16]), (10_240, [10_240]), (0, [])])
def test_a_system_that_refuses_an_infinite_limit_gets_a_finite_one(
    most: int, raised: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As macOS does, where the soft limit is 256."""
    limits: list[int] = []

    def set_limit(_: int, pair: tuple[int, int]) -> None:
        if pair[0] > most:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(pair[0])

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1 << 62))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    raise_descriptor_limit()
    assert limits == raised
