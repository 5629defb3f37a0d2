"""The log limit: the same line a few times, then a count."""

import logging

import pytest

from safelight_gateway.server.log_limit import LogLimit


class Clock:
    """A clock that stands still until it is set."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_lines_of_one_kind_are_limited_and_counted(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limit = LogLimit(burst=2, window_s=10.0, clock=clock)
    caplog.handler.addFilter(limit)
    log = logging.getLogger("flooded")
    try:
        for number in range(100):
            log.warning("refused a connection of %s", number)
        log.warning("something else")
        assert [record.getMessage() for record in caplog.records] == [
            "refused a connection of 0",
            "refused a connection of 1",
            "something else",
        ]
        clock.now_s = 10.0
        log.warning("refused a connection of %s", "another")
        said = "refused a connection of another (98 more such lines before this one)"
        assert caplog.records[-1].getMessage() == said
        for _ in range(3):
            log.warning("refused a connection of %s", "another")
        clock.now_s = 20.0
        limit.report()
        assert caplog.records[-1].getMessage().startswith("2 more lines were suppressed: refused")
        count = len(caplog.records)
        limit.report()
        assert len(caplog.records) == count
    finally:
        caplog.handler.removeFilter(limit)
