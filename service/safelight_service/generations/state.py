"""State: where a generation is in its life, and how it changes.

    Generate -> RUNNING -> COMPLETED   all images were made
                        -> FAILED      refused, or something went wrong
                        -> CANCELLED   by its id, or nobody watched it any more

A generation is RUNNING from the call that starts it, while its model is loaded, while it waits
for the device and while its images are made. It ends once. Once ended, it is kept for a while, so
that it can be watched again, and then forgotten. One that was refused before it was accepted is
forgotten at once.
"""

import asyncio
import enum
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from safelight_service.core.errors import GenerationCancelledError, SafelightError
from safelight_service.core.events import Accepted, Completed, Event, Image, Preview, Progress
from safelight_service.core.request import GenerationRequest
from safelight_service.generations.subscription import WAITING, Subject, Subscription, subject_of

if TYPE_CHECKING:
    from safelight_service.generations.execution import Execution

_OVERHEAD_BYTES = 4096
"""What a generation that is kept takes beside its images, at most."""


class State(enum.Enum):
    """Where a generation is in its life."""

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
"""Every state, and the states that may follow it."""


def state_of(outcome: Completed | SafelightError | None) -> State:
    """Return the state that an outcome stands for."""
    match outcome:
        case None:
            return State.RUNNING
        case Completed():
            return State.COMPLETED
        case GenerationCancelledError():
            return State.CANCELLED
    return State.FAILED


class Generation:
    """What one id stands for: a request, who watches it and what has come of it."""

    def __init__(self, owner: str, generation_id: str, request: GenerationRequest) -> None:
        self.owner = owner
        """Name of the caller that started it, and that alone may watch and cancel it."""
        self.id = generation_id
        self.began_at = time.monotonic()
        self.request = request
        self.admitted = ExitStack()
        """Counts it as running, until it is closed."""
        self.accepted: Accepted | None = None
        self.outcome: Completed | SafelightError | None = None
        self.watchers: set[Subscription] = set()
        self.execution: Execution | None = None
        """What makes its images, while it is RUNNING."""
        self.observed: object = None
        """Whatever an observer keeps beside it."""
        self.timer: asyncio.TimerHandle | None = None
        """Cancels a generation that nobody watches; forgets one that has ended."""
        self._present: dict[Subject, Event] = {}

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return state_of(self.outcome)

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, roughly."""
        images = (event.data for event in self._present.values() if isinstance(event, Image))
        return _OVERHEAD_BYTES + sum(map(len, images))

    @property
    def present(self) -> tuple[Event, ...]:
        """What a watcher that comes now is told."""
        return tuple(self._present.values())

    def join(self) -> Subscription:
        """Return the subscription of a new watcher: the present state, then what happens."""
        subscription = Subscription()
        for event in self.present:
            subscription.post(event)
        if self.outcome is None:
            self.watchers.add(subscription)
        else:
            subscription.close(self.outcome if isinstance(self.outcome, SafelightError) else None)
        return subscription

    def publish(self, event: Event) -> None:
        """Tell an event to all watchers, and to those that are still to come."""
        match event:
            case Accepted():
                event = self.accepted = replace(event, generation_id=self.id)
            case Progress():
                self._present.pop(WAITING, None)
            case Image():
                for kind in (Progress, Preview):
                    self._present.pop((kind, event.index), None)
        self._present.pop(subject_of(event), None)
        self._present[subject_of(event)] = event
        for subscription in self.watchers:
            subscription.post(event)

    def end(self, outcome: Completed | SafelightError) -> None:
        """Leave RUNNING with an outcome.

        Raises:
            ValueError: it has ended already.
        """
        if state_of(outcome) not in TRANSITIONS[self.state]:
            raise ValueError(f"{self.state} cannot become {state_of(outcome)}")
        if isinstance(outcome, Completed):
            self.publish(outcome)
        self.outcome = outcome
        for subscription in self.watchers:
            subscription.close(outcome if isinstance(outcome, SafelightError) else None)
        self.watchers.clear()
