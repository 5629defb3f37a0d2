"""The prepared request: the steps that are shown of an image."""

import pytest

from safelight_gateway.generation.preparation import spread_previews


@pytest.mark.parametrize(
    ("count", "step_count", "steps"),
    [
        (0, 20, ()),
        (1, 20, (10,)),
        (2, 20, (6, 12)),
        (3, 20, (5, 10, 15)),
        (3, 4, (1, 2, 3)),
        (3, 5, (1, 2, 3)),
        (2, 2, (1,)),
        (3, 1, ()),
        (1, -5, ()),
    ],
)
def test_previews_are_spread_over_the_steps(
    count: int, step_count: int, steps: tuple[int, ...]
) -> None:
    assert spread_previews(count, step_count) == steps


def test_previews_are_as_many_as_asked_where_the_steps_suffice() -> None:
    for count in (1, 2, 3):
        for step_count in range(count + 1, 60):
            steps = spread_previews(count, step_count)
            assert len(steps) == count
            assert all(step % steps[0] == 0 and 0 < step < step_count for step in steps)
