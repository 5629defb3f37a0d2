"""Lines that callers cause are logged up to a limit, and the others are counted."""

from safelight_settings import LineLimit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_beyond_the_limit_are_counted_by_the_next_one() -> None:
    clock = Clock()
    lines = LineLimit(2, 10.0, clock)
    assert [lines.admit("a") for _ in range(5)] == [{}, {}, None, None, None]
    clock.now = 10.0
    assert [lines.admit("a") for _ in range(3)] == [{"suppressed": 3}, {}, None]
    clock.now = 20.0
    assert lines.admit("a") == {"suppressed": 1}


def test_kinds_have_limits_of_their_own() -> None:
    lines = LineLimit(1, 10.0, Clock())
    assert [lines.admit(kind) for kind in "aabb"] == [{}, None, {}, None]
