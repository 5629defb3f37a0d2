"""Generations: starts, joins, watches and cancels them; each runs once for all its watchers.

`state.py` holds the life cycle of a generation, `execution.py` the run that makes its images,
`image_source.py` where these come from.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Set
from contextlib import ExitStack, aclosing
from dataclasses import replace

import structlog

from safelight_service.auth.tokens import current_caller, current_owner
from safelight_service.cache import ResultCache
from safelight_service.core.backend import Backend
from safelight_service.core.errors import (
    DeadlineError,
    GenerationCancelledError,
    GenerationExistsError,
    GenerationNotFoundError,
    SafelightError,
    StoppingError,
    TimeLimitError,
    UnauthenticatedError,
    report_fault,
)
from safelight_service.core.events import Completed, Event, Usage
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.core.request import GenerationRequest
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.generations.admission import Admission, Quotas
from safelight_service.generations.end_line import describe_end
from safelight_service.generations.execution import Execution
from safelight_service.generations.image_source import ImageSource
from safelight_service.generations.index import GenerationIndex
from safelight_service.generations.leases import Leases
from safelight_service.generations.lingering import Lingering
from safelight_service.generations.open_seed import derive_run_key, derive_seed
from safelight_service.generations.state import Generation, State
from safelight_service.generations.subscription import Subscription
from safelight_service.generations.watches import WatchBounds
from safelight_service.settings import GenerationSettings
from safelight_settings import LineLimit

_log = structlog.get_logger()


class Generations:
    """All generations that run or have ended recently. Call its methods on one event loop."""

    def __init__(
        self,
        backend: Backend,
        cache: ResultCache,
        settings: GenerationSettings,
        observer: Observer = NULL_OBSERVER,
        quotas: Quotas | None = None,
        leases: Leases | None = None,
        heartbeat_s: float = 5.0,
    ) -> None:
        """`quotas` and `leases` are shared with other services.

        A watcher that has received nothing for a little more than `heartbeat_s` seconds, after
        which backends repeat the positions of waiting work, receives the latest event again.
        """
        self._backend = backend
        self._source = ImageSource(backend, cache, observer, leases)
        self._settings = settings
        self._observer = observer
        self._admission = Admission(quotas)
        self._index = GenerationIndex(settings.keep_mib << 20)
        self._lingering = Lingering(settings.max_lingering)
        self._refusals = LineLimit()
        self._watches = WatchBounds(settings.max_watches)
        self._longest_silence_s = 1.2 * heartbeat_s

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Start a generation, or join the one that an equal request has started.

        Restarts a generation that failed or was cancelled. Close the generator to stop watching.

        Raises:
            GenerationExistsError: another request uses the id.
            ModelForbiddenError, TooManyGenerationsError, RateLimitedError: the caller's token
                does not allow another generation.
            TooManyWatchesError: the tenant watches as many generations as it may.
            SafelightError: the error that the generation failed with.
        """
        generation = self._find_same(request)
        if generation is None:
            slot = await self._admission.take_slot(current_caller.get())
            generation = self._find_same(request)  # perhaps started by another call meanwhile
            if generation is None:
                watching = self._watch(self._start(request, slot))
            else:
                slot.close()
                watching = self._join(generation, request.tenant)
        else:
            watching = self._join(generation, request.tenant)
        async with aclosing(watching) as events:
            async for event in events:
                yield event

    async def watch(
        self, generation_id: str, tenant: Tenant = NO_TENANT
    ) -> AsyncGenerator[Event, None]:
        """Join a generation: yield its present state, then its events. Close it to stop watching.

        Raises:
            GenerationNotFoundError: the generation is neither running nor kept.
            TooManyWatchesError: the tenant watches as many generations as it may.
            SafelightError: the error that the generation failed with.
        """
        async with aclosing(self._join(self._find(generation_id), tenant)) as events:
            async for event in events:
                yield event

    def cancel(self, generation_id: str) -> State:
        """Cancel a generation unless it has ended; return its final state.

        Raises:
            GenerationNotFoundError: the generation is neither running nor kept.
        """
        generation = self._find(generation_id)
        self._cancel(generation)
        return generation.state

    def knows(self, owner: str, generation_id: str) -> bool:
        """Return whether a generation runs or is kept."""
        return self._index.get(owner, generation_id) is not None

    def end_except(self, owners: Set[str]) -> None:
        """End and forget the generations of all owners but these."""
        for owner in self._index.owners - owners:
            for generation in self._index.list_of(owner):
                self._end(generation, UnauthenticatedError())
                self._index.forget(generation)

    async def close(self) -> None:
        """End and forget all generations, and close the cache."""
        for generation in tuple(self._index):
            self._end(generation, StoppingError())
            self._index.forget(generation)
        await self._source.close()

    def _find(self, generation_id: str) -> Generation:
        generation = self._index.get(current_owner(), generation_id)
        if generation is None:
            raise GenerationNotFoundError(generation_id)
        return generation

    def _find_same(self, request: GenerationRequest) -> Generation | None:
        """Return the generation that a request joins; None if it starts one.

        Raises:
            GenerationExistsError: another request uses the id.
        """
        generation = self._index.get(current_owner(), request.generation_id)
        if generation is not None and generation.request != request:
            raise GenerationExistsError(request.generation_id)
        is_over = generation is not None and generation.state in (State.FAILED, State.CANCELLED)
        return None if is_over else generation

    def _start(self, request: GenerationRequest, slot: ExitStack) -> Generation:
        caller = current_caller.get()
        if caller is not None:
            request = replace(request, cache_scope=caller.cache_scope)
        owner, generation_id = current_owner(), request.generation_id
        if generation_id:
            request = replace(
                request,
                open_seed=derive_seed(owner, generation_id),
                run_key=derive_run_key(owner, generation_id),
            )
        generation = Generation(owner, generation_id or uuid.uuid4().hex, request)
        model = request.model or self._backend.default_model
        with slot:
            generation.admitted.enter_context(self._admission.admit(caller, model))
            generation.admitted.push(slot.pop_all())
        self._index.add(generation)
        self._observer.generation_began(generation)
        self._launch(generation)
        return generation

    async def _join(self, generation: Generation, tenant: Tenant) -> AsyncGenerator[Event, None]:
        has_ended = generation.outcome is not None
        with ExitStack() as counted:
            if has_ended or generation.watchers:
                counted.enter_context(self._watches.enter(tenant))
            self._observer.generation_joined(generation)
            if generation.execution is not None and not has_ended:
                generation.execution.note_joined()
            async with aclosing(self._watch(generation)) as events:
                async for event in events:
                    yield event

    async def _watch(self, generation: Generation) -> AsyncGenerator[Event, None]:
        subscription = generation.join()
        if generation.outcome is None:
            generation.cancel_timer()
            self._lingering.discard(generation)
            self._note_watchers(generation)
        try:
            while (event := await self._next(generation, subscription)) is not None:
                yield event
        finally:
            generation.watchers.discard(subscription)
            self._observer.previews_dropped(subscription.dropped_preview_count)
            if generation.outcome is None and not generation.watchers:
                self._leave_alone(generation)

    async def _next(self, generation: Generation, subscription: Subscription) -> Event | None:
        """Return the next event, or the latest one again as a sign of life; None at the end."""
        while True:
            try:
                async with asyncio.timeout(self._longest_silence_s):
                    return await subscription.get()
            except TimeoutError:
                if generation.sign_of_life is not None:
                    return generation.sign_of_life

    def _note_watchers(self, generation: Generation) -> None:
        if generation.execution is not None:
            generation.execution.note_watchers()

    def _leave_alone(self, generation: Generation) -> None:
        """Cancel a generation without watchers, now or after its linger time."""
        if generation.request.linger_s <= 0:
            if generation.is_late:
                self._cancel(generation)
            else:
                self._end(generation, GenerationCancelledError())  # its callers may call again
            return
        generation.set_timer(generation.request.linger_s, self._time_out)
        self._note_watchers(generation)
        first = self._lingering.add(generation)
        if first is not None:
            self._cancel(first)

    async def _run_execution(self, execution: Execution) -> None:
        """Make the images or find them, and end all generations of the execution."""
        try:
            outcome = await self._find_outcome(execution)
        finally:
            self._observer.execution_ended(execution.timeline)
        self._source.close_to_others(execution)
        for generation in tuple(execution.generations):
            if isinstance(outcome, DeadlineError) and generation.request is not execution.request:
                self._launch(generation)  # the deadline was another request's
            elif isinstance(outcome, Completed) and generation.request is not execution.request:
                self._end(generation, replace(outcome, usage=Usage()))  # it counts for the first
            elif outcome is not None:
                self._end(generation, outcome)

    async def _find_outcome(self, execution: Execution) -> Completed | SafelightError | None:
        """Return the outcome of an execution; None if another one has taken it over."""
        # Runs before the limit's own timer, which is set later.
        noting = asyncio.get_running_loop().call_later(self._settings.max_s, execution.note_over)
        try:
            async with asyncio.timeout(self._settings.max_s) as limit:
                return await self._source.get(execution)
        except SafelightError as error:
            return error
        except BaseException as fault:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # its generations have ended already
            is_late = isinstance(fault, TimeoutError) and limit.expired()
            return TimeLimitError(self._settings.max_s) if is_late else report_fault(fault)
        finally:
            noting.cancel()

    def _launch(self, generation: Generation) -> None:
        """Start an execution for a generation."""
        execution = generation.execution = Execution(generation)
        execution.note_watchers()
        if len(generation.watchers) > 1:
            execution.note_joined()
        self._observer.execution_began(generation, execution.timeline)
        execution.task = asyncio.create_task(self._run_execution(execution))

    def _cancel(self, generation: Generation) -> None:
        """End a generation that nobody wants any more."""
        if generation.execution is not None:
            generation.execution.note_cancelled(generation)
        self._end(generation, GenerationCancelledError())

    def _end(self, generation: Generation, outcome: Completed | SafelightError) -> None:
        """End a generation, once; the only way out of RUNNING."""
        if generation.outcome is not None:
            return
        generation.end(outcome)
        generation.admitted.close()
        self._lingering.discard(generation)
        self._log_end(generation)
        execution = generation.execution
        assert execution is not None
        execution.generations.remove(generation)
        if not execution.generations:
            self._source.close_to_others(execution)
            execution.stop()
        else:
            execution.note_watchers()
        if generation.accepted is None:
            self._index.forget(generation)
            return
        generation.set_timer(self._settings.keep_s, self._time_out)
        self._index.keep(generation)

    def _log_end(self, generation: Generation) -> None:
        """Log a generation that has ended; of many refused ones of a caller, some."""
        line = {**describe_end(generation), **self._observer.generation_ended(generation)}
        if generation.accepted is None:
            admitted = self._refusals.admit(
                f"{generation.owner} {type(generation.outcome).__name__}"
            )
            if admitted is None:
                return
            line |= admitted
        _log.info("generation_ended", **line)

    def _time_out(self, generation: Generation) -> None:
        if generation.outcome is None:
            self._cancel(generation)
        else:
            self._index.forget(generation)
