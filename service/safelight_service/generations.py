"""Generations: each runs once, whoever and however many watch it.

A generation is RUNNING from the call that starts it, while its model is loaded, while it waits
for the device and while its images are made. It ends once, as

- COMPLETED: all its images have been made;
- FAILED: the request was refused, or something went wrong; its outcome says what;
- CANCELLED: by `cancel`, or because nobody had watched it for as long as it may linger.

Once ended, it is kept for a while to be told again, and then forgotten. One that was refused
before it was accepted is forgotten at once.
"""

import asyncio
import enum
import uuid
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import replace

from safelight_service.admission import Admission
from safelight_service.engine import Engine, Resolved, report_fault
from safelight_service.errors import (
    GenerationCancelledError,
    GenerationExistsError,
    GenerationNotFoundError,
    SafelightError,
    StoppingError,
    TimeLimitError,
)
from safelight_service.generation import (
    Accepted,
    Completed,
    Event,
    GenerationRequest,
    Image,
    Preview,
    Progress,
)
from safelight_service.mailbox import WAITING, Mailbox, Subject, subject_of
from safelight_service.settings import GenerationSettings
from safelight_service.tokens import current_caller

_OVERHEAD_BYTES = 4096
"""What a generation that is kept takes beside its images, at most."""


class State(enum.Enum):
    """Where a generation is in its life."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Generation:
    """What one id stands for: a request, who watches it and what has come of it."""

    def __init__(self, owner: str, generation_id: str, request: GenerationRequest) -> None:
        self.owner = owner
        """Name of the caller that started it, and that alone may watch and cancel it."""
        self.id = generation_id
        self.request = request
        self.admitted = ExitStack()
        """Counts it as running, until it is closed."""
        self.accepted: Accepted | None = None
        self.outcome: Completed | SafelightError | None = None
        self.watchers: set[Mailbox] = set()
        self.task: asyncio.Task[None] | None = None
        """Reads the engine's events."""
        self.timer: asyncio.TimerHandle | None = None
        """Cancels a generation that nobody watches; forgets one that has ended."""
        self._present: dict[Subject, Event] = {}
        """What a watcher that comes now is told."""

    @property
    def state(self) -> State:
        """Where it is in its life."""
        match self.outcome:
            case None:
                return State.RUNNING
            case Completed():
                return State.COMPLETED
            case GenerationCancelledError():
                return State.CANCELLED
        return State.FAILED

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, roughly."""
        images = (event.data for event in self._present.values() if isinstance(event, Image))
        return _OVERHEAD_BYTES + sum(map(len, images))

    def join(self) -> Mailbox:
        """Return the mailbox of a new watcher: the present state, then what happens."""
        mailbox = Mailbox(asyncio.get_running_loop())
        for event in self._present.values():
            mailbox.post(event)
        if self.outcome is None:
            self.watchers.add(mailbox)
        else:
            mailbox.close(self.outcome if isinstance(self.outcome, SafelightError) else None)
        return mailbox

    def publish(self, event: Event) -> None:
        """Tell an event to all watchers, and to those that are still to come."""
        match event:
            case Progress():
                self._present.pop(WAITING, None)
            case Image():
                for kind in (Progress, Preview):
                    self._present.pop((kind, event.index), None)
        self._present.pop(subject_of(event), None)
        self._present[subject_of(event)] = event
        for mailbox in self.watchers:
            mailbox.post(event)

    def end(self, outcome: Completed | SafelightError) -> None:
        """Settle what has come of it; only once."""
        if isinstance(outcome, Completed):
            self.publish(outcome)
        self.outcome = outcome
        for mailbox in self.watchers:
            mailbox.close(outcome if isinstance(outcome, SafelightError) else None)
        self.watchers.clear()


class Generations:
    """All generations that run or have ended lately; belongs to one event loop."""

    def __init__(self, engine: Engine, settings: GenerationSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._admission = Admission()
        self._by_id: dict[tuple[str, str], Generation] = {}
        """By owner and id."""
        self._kept: dict[Generation, int] = {}
        """Bytes of those that have ended, the longest ago first."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Start a generation, or join the one that has been started by the same request.

        One that failed or was cancelled is started anew. To close the generator is to leave.

        Raises:
            GenerationExistsError: the id is that of another request.
            ModelForbiddenError, TooManyGenerationsError, RateLimitedError: the caller's token
                does not allow it.
            SafelightError: what the generation failed with.
        """
        generation = self._by_id.get((_owner(), request.generation_id))
        if generation is not None and generation.request != request:
            raise GenerationExistsError(request.generation_id)
        if generation is None or generation.state in (State.FAILED, State.CANCELLED):
            generation = self._start(request)
        async with aclosing(self._watch(generation)) as events:
            async for event in events:
                yield event

    async def watch(self, generation_id: str) -> AsyncGenerator[Event, None]:
        """Join a generation: its present state, then what happens. To close is to leave.

        Raises:
            GenerationNotFoundError: it does not run, and is not kept.
            SafelightError: what the generation failed with.
        """
        async with aclosing(self._watch(self._find(generation_id))) as events:
            async for event in events:
                yield event

    def cancel(self, generation_id: str) -> State:
        """Cancel a generation unless it has ended; return the state that it ended in.

        Raises:
            GenerationNotFoundError: it does not run, and is not kept.
        """
        generation = self._find(generation_id)
        self._cancel(generation)
        return generation.state

    def close(self) -> None:
        """End all generations and forget them."""
        for generation in tuple(self._by_id.values()):
            self._end(generation, StoppingError())
            self._forget(generation)

    def _find(self, generation_id: str) -> Generation:
        generation = self._by_id.get((_owner(), generation_id))
        if generation is None:
            raise GenerationNotFoundError(generation_id)
        return generation

    def _start(self, request: GenerationRequest) -> Generation:
        generation = Generation(_owner(), request.generation_id or uuid.uuid4().hex, request)
        model = request.model or self._engine.default_model
        generation.admitted.enter_context(self._admission.admit(current_caller.get(), model))
        key = generation.owner, generation.id
        if key in self._by_id:
            self._forget(self._by_id[key])
        self._by_id[key] = generation
        generation.task = asyncio.create_task(self._run(generation))
        return generation

    async def _watch(self, generation: Generation) -> AsyncGenerator[Event, None]:
        mailbox = generation.join()
        if generation.outcome is None:
            self._set_timer(generation, None)
        try:
            while (event := await mailbox.get()) is not None:
                yield event
        finally:
            generation.watchers.discard(mailbox)
            if generation.outcome is None and not generation.watchers:
                self._leave_alone(generation)

    def _leave_alone(self, generation: Generation) -> None:
        """Cancel a generation that nobody watches, at once or when it has lingered."""
        if generation.request.linger_s > 0:
            self._set_timer(generation, generation.request.linger_s)
        else:
            self._cancel(generation)

    async def _run(self, generation: Generation) -> None:
        """Read the engine's events to their end, whatever that is."""
        outcome: Completed | SafelightError | None = None
        try:
            async with (
                asyncio.timeout(self._settings.max_s) as limit,
                aclosing(self._engine.generate(generation.request)) as events,
            ):
                async for event in events:
                    match event:
                        case Resolved():
                            pass
                        case Accepted():
                            generation.accepted = replace(event, generation_id=generation.id)
                            generation.publish(generation.accepted)
                        case Completed():
                            outcome = event
                        case _:
                            generation.publish(event)
        except SafelightError as error:
            outcome = error
        except BaseException as fault:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it has ended already
            is_late = isinstance(fault, TimeoutError) and limit.expired()
            outcome = TimeLimitError(self._settings.max_s) if is_late else report_fault(fault)
        assert outcome is not None
        self._end(generation, outcome)

    def _cancel(self, generation: Generation) -> None:
        self._end(generation, GenerationCancelledError())

    def _end(self, generation: Generation, outcome: Completed | SafelightError) -> None:
        """The one way out of RUNNING."""
        if generation.outcome is not None:
            return
        generation.end(outcome)
        generation.admitted.close()
        if generation.task is not None and generation.task is not asyncio.current_task():
            generation.task.cancel()
        if generation.accepted is None:
            self._forget(generation)
            return
        self._kept[generation] = generation.size_bytes
        self._set_timer(generation, self._settings.keep_s)
        while sum(self._kept.values()) > self._settings.keep_mib << 20:
            self._forget(next(iter(self._kept)))

    def _set_timer(self, generation: Generation, seconds: float | None) -> None:
        """Have `_time_out` called after so many seconds; None: never."""
        if generation.timer is not None:
            generation.timer.cancel()
            generation.timer = None
        if seconds is not None:
            loop = asyncio.get_running_loop()
            generation.timer = loop.call_later(seconds, self._time_out, generation)

    def _time_out(self, generation: Generation) -> None:
        if generation.outcome is None:
            self._cancel(generation)
        else:
            self._forget(generation)

    def _forget(self, generation: Generation) -> None:
        self._set_timer(generation, None)
        self._kept.pop(generation, None)
        key = generation.owner, generation.id
        if self._by_id.get(key) is generation:
            del self._by_id[key]


def _owner() -> str:
    """Name of who makes the call that is being handled; empty where no tokens are asked for."""
    caller = current_caller.get()
    return caller.name if caller else ""
