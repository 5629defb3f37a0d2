"""State: transitions of a generation, as in its table and in the docs."""

import re
from pathlib import Path

import pytest

from safelight_service.core.errors import GenerationCancelledError, InternalError, SafelightError
from safelight_service.core.events import (
    Completed,
    Image,
    Preview,
    Progress,
    Restarted,
    Timings,
)
from safelight_service.core.request import GenerationRequest
from safelight_service.generations import state
from safelight_service.generations.state import TRANSITIONS, Generation, State, state_of

COMPLETED = Completed(Timings(0, 0, 0, 0, 0, 0, 0), 4, {1: 4})
OUTCOMES: dict[State, Completed | SafelightError] = {
    State.COMPLETED: COMPLETED,
    State.FAILED: InternalError("id"),
    State.CANCELLED: GenerationCancelledError(),
}


def make_generation(in_state: State) -> Generation:
    generation = Generation("", "id", GenerationRequest("x"))
    if in_state is not State.RUNNING:
        generation.end(OUTCOMES[in_state])
    return generation


def test_the_table_has_every_state() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state_of(outcome) for outcome in OUTCOMES.values()} | {State.RUNNING} == set(State)


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", OUTCOMES)
def test_a_generation_changes_as_the_table_says_and_not_otherwise(
    before: State, after: State
) -> None:
    generation = make_generation(before)
    assert generation.state is before
    if after in TRANSITIONS[before]:
        generation.end(OUTCOMES[after])
        assert generation.state is after
    else:
        with pytest.raises(ValueError, match="cannot become"):
            generation.end(OUTCOMES[after])
        assert generation.state is before


@pytest.mark.parametrize("text", [state.__doc__, Path("docs/generations.md").read_text()])
def test_the_diagrams_show_the_table(text: str) -> None:
    assert "Generate" in text
    ends = set(re.findall(r"─*->? *([A-Z]{6,})|─*> *([A-Z]{6,})", text))
    shown = {
        State[first or second] for first, second in ends if (first or second) in State.__members__
    }
    assert shown - {State.RUNNING} == TRANSITIONS[State.RUNNING]


def test_a_watcher_that_joins_after_a_restart_sees_no_step_from_before() -> None:
    generation = make_generation(State.RUNNING)
    image = Image(0, "image/png", 8, 8, 7, False, "", b"")
    for event in (
        image,
        Progress(5, 9, 1, 0.0, 0.0),
        Preview(1, 5, "image/jpeg", 8, 8, b""),
        Restarted(1, 3),
        Progress(4, 9, 1, 0.0, 0.0),
    ):
        generation.publish(event)
    assert generation.present == (image, Restarted(1, 3), Progress(4, 9, 1, 0.0, 0.0))
