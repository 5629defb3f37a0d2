"""State: the life cycle of a generation.

    Generate -> RUNNING -> COMPLETED   all images were made
                        -> FAILED      refused, or an error occurred
                        -> CANCELLED   by its id, or its last watcher left

A generation is RUNNING while its model is loaded, while it waits for the device and while its
images are made. It ends once. After that it is kept for a while, so that it can be watched again.
A generation that was refused before it was accepted is forgotten at once.
"""

import asyncio
import enum
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from safelight_service.core.errors import GenerationCancelledError, SafelightError
from safelight_service.core.events import (
    Accepted,
    Completed,
    Event,
    Image,
    ModelLoading,
    Preview,
    Progress,
    Queued,
    Restarted,
)
from safelight_service.core.request import GenerationRequest
from safelight_service.generations.subscription import WAITING, Subject, Subscription, subject_of

if TYPE_CHECKING:
    from safelight_service.generations.execution import Execution


_LATE_S = 0.5
"""A call that ends so long before its deadline may have ended by it; clients' clocks begin earlier.
"""


class State(enum.Enum):
    """State of a generation."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[State, frozenset[State]] = {
    State.RUNNING: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
"""The states that may follow each state."""


def state_of(outcome: Completed | SafelightError | None) -> State:
    """Return the state of a generation with this outcome; None means no outcome yet."""
    match outcome:
        case None:
            return State.RUNNING
        case Completed():
            return State.COMPLETED
        case GenerationCancelledError():
            return State.CANCELLED
    return State.FAILED


class Generation:
    """A request, its watchers and its outcome, under one id."""

    def __init__(self, owner: str, generation_id: str, request: GenerationRequest) -> None:
        self.owner = owner
        """Name of the caller that started it; only this caller may watch or cancel it."""
        self.id = generation_id
        self.began_at = time.monotonic()
        self.request = request
        self.admitted = ExitStack()
        """Counts it as running until closed."""
        self.accepted: Accepted | None = None
        self.outcome: Completed | SafelightError | None = None
        self.watchers: set[Subscription] = set()
        self.execution: Execution | None = None
        """Makes its images while it is RUNNING."""
        self.observed: object = None
        """Storage for an observer."""
        self._timer: asyncio.TimerHandle | None = None
        self._present: dict[Subject, Event] = {}

    @property
    def state(self) -> State:
        """Its present state."""
        return state_of(self.outcome)

    @property
    def contents(self) -> tuple[bytes, ...]:
        """The images and previews that it holds, as files."""
        return tuple(
            event.data for event in self._present.values() if isinstance(event, Image | Preview)
        )

    @property
    def present(self) -> tuple[Event, ...]:
        """Events that describe its present state to a new watcher."""
        return tuple(self._present.values())

    @property
    def sign_of_life(self) -> Event | None:
        """The latest event that may be repeated; None before it waits or makes steps."""
        waits = [
            each for each in self.present if isinstance(each, ModelLoading | Queued | Progress)
        ]
        return waits[-1] if waits else None

    @property
    def is_late(self) -> bool:
        """Whether the deadline of its only call passes about now, so that nobody calls again."""
        deadline_at = self.request.deadline_at
        if deadline_at is None or self.execution is None:
            return False
        is_joined = self.execution.timeline.joined_at is not None
        return not is_joined and time.monotonic() > deadline_at - _LATE_S

    def join(self) -> Subscription:
        """Return the subscription of a new watcher: the present state, then further events."""
        subscription = Subscription()
        for event in self.present:
            subscription.post(event)
        if self.outcome is None:
            self.watchers.add(subscription)
        else:
            subscription.close(self.outcome if isinstance(self.outcome, SafelightError) else None)
        return subscription

    def publish(self, event: Event) -> None:
        """Post an event to all watchers, and keep it for later ones while it is current."""
        match event:
            case Accepted():
                event = self.accepted = replace(event, generation_id=self.id)
            case Progress():
                self._present.pop(WAITING, None)
            case Restarted():
                for kind, index in [*self._present]:
                    if kind in (Progress, Preview):
                        del self._present[kind, index]
            case Image():
                for kind in (Progress, Preview):
                    self._present.pop((kind, event.index), None)
        self._present.pop(subject_of(event), None)
        self._present[subject_of(event)] = event
        for subscription in self.watchers:
            subscription.post(event)

    def end(self, outcome: Completed | SafelightError) -> None:
        """Leave RUNNING with an outcome, and close all subscriptions.

        Raises:
            ValueError: the generation has ended already.
        """
        if state_of(outcome) not in TRANSITIONS[self.state]:
            raise ValueError(f"{self.state} cannot become {state_of(outcome)}")
        if isinstance(outcome, Completed):
            self.publish(outcome)
        self.outcome = outcome
        for subscription in self.watchers:
            subscription.close(outcome if isinstance(outcome, SafelightError) else None)
        self.watchers.clear()

    def set_timer(self, seconds: float, on_timeout: "Callable[[Generation], None]") -> None:
        """Call `on_timeout` with this generation after `seconds`; replaces the last timer."""
        self.cancel_timer()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, on_timeout, self)

    def cancel_timer(self) -> None:
        """Cancel the timer, if one is set."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
