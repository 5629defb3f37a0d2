import pytest
import torch
from torch import Tensor

from safelight_service.engine.sampling.reuse import MAX_SHARE, StepReuse, choose_steps


def longest_row(steps: frozenset[int]) -> int:
    row = longest = 0
    for step in range(max(steps, default=0) + 1):
        row = row + 1 if step in steps else 0
        longest = max(longest, row)
    return longest


@pytest.mark.parametrize("errors", [None, [1.0] * 20, [float(n) for n in range(20, 0, -1)]])
@pytest.mark.parametrize("step_count", [1, 2, 4, 5, 8, 20, 30, 50, 150])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.2, 1 / 3, 0.5, MAX_SHARE])
def test_reused_steps_are_at_most_the_share_and_leave_the_ends(
    step_count: int, share: float, errors: list[float] | None
) -> None:
    steps = choose_steps(step_count, share, errors)
    assert len(steps) <= share * step_count + 1e-6
    assert not steps & {0, 1, step_count - 1}
    assert longest_row(steps) <= 3
    if step_count >= 20:
        assert len(steps) >= int(share * step_count + 1e-9) - 1


def test_steps_are_spread_evenly() -> None:
    assert sorted(choose_steps(30, 1 / 3)) == [5, 7, 10, 12, 15, 17, 20, 22, 25, 27]


def test_calibrated_steps_avoid_places_with_large_errors() -> None:
    errors = [1.0] * 10 + [100.0] * 10
    assert max(choose_steps(40, 0.25, errors)) < 20
    assert min(choose_steps(40, 0.25, errors[::-1])) >= 20


def linear(step: int) -> Tensor:
    return torch.tensor([1.0, -2.0]) * step + 5


def test_an_output_continues_the_line_through_the_last_two_computed_ones() -> None:
    reuse = StepReuse(frozenset({2, 4, 5}))
    for step in range(7):
        output = reuse.begin_forward(step)
        if step in reuse.steps:
            assert output is not None
            torch.testing.assert_close(output[0], linear(step))
        else:
            assert output is None
            reuse.note((linear(step),))
    assert reuse.forward_count == 3


def test_each_forward_of_a_step_continues_those_at_its_place() -> None:
    reuse = StepReuse(frozenset({2}))
    for step in range(3):
        for place in (0, 100):
            output = reuse.begin_forward(step)
            if step < 2:
                reuse.note([linear(step + place)])
            else:
                assert output is not None
                torch.testing.assert_close(output[0], linear(step + place))
    assert reuse.forward_count == 2


def test_without_two_outputs_a_forward_is_computed() -> None:
    reuse = StepReuse(frozenset({1, 2}))
    assert reuse.begin_forward(0) is None
    reuse.note(linear(0))
    assert reuse.begin_forward(1) is None
    reuse.note(linear(1))
    assert reuse.begin_forward(2) is not None
    assert reuse.begin_forward(2) is None  # the second forward of a step has no history
    assert reuse.forward_count == 1


def test_outputs_that_a_scheduler_writes_into_are_kept() -> None:
    reuse = StepReuse(frozenset({2}))
    for step in range(2):
        reuse.begin_forward(step)
        output = linear(step)
        reuse.note(output)
        output.zero_()
    torch.testing.assert_close(reuse.begin_forward(2), linear(2))


def test_computed_steps_are_counted() -> None:
    reuse = StepReuse(frozenset({2, 4}))
    assert reuse.count_computed(0, 6) == 4
    assert reuse.count_computed(3, 6) == 2
    assert reuse.count_computed(5, 5) == 0
