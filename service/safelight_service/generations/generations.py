"""Generations: each runs once, however many watch it.

`state.py` has the life of one, `execution.py` the making of its images. What was made once is not
made again while the cache has it.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Hashable
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace

import structlog

from safelight_service.auth.tokens import current_caller
from safelight_service.cache import Result, ResultCache, cache_key
from safelight_service.core.backend import Backend, Prepared
from safelight_service.core.errors import (
    DeadlineError,
    GenerationCancelledError,
    GenerationExistsError,
    GenerationNotFoundError,
    SafelightError,
    StoppingError,
    TimeLimitError,
    report_fault,
)
from safelight_service.core.events import Accepted, CacheUse, Completed, Event
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.core.request import GenerationRequest
from safelight_service.generations.admission import Admission
from safelight_service.generations.execution import Execution
from safelight_service.generations.state import Generation, State
from safelight_service.settings import GenerationSettings

_log = structlog.get_logger()

_ANY_SEED = -1
"""Stands for the seed of requests that leave it open, where these get each other's images."""


@dataclass(frozen=True, slots=True)
class _Key:
    """What requests for the same images have in common."""

    result: str
    """In the cache."""
    execution: Hashable
    """While they are made: those who join want the same previews, too."""


class Generations:
    """All generations that run or have ended lately; belongs to one event loop."""

    def __init__(
        self,
        backend: Backend,
        cache: ResultCache,
        settings: GenerationSettings,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._backend = backend
        self._cache = cache
        self._settings = settings
        self._observer = observer
        self._admission = Admission()
        self._executions: dict[Hashable, Execution] = {}
        """Those that others may join, by what their images depend on."""
        self._storing: set[asyncio.Task[None]] = set()
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
        else:
            self._observer.generation_joined(generation)
        async with aclosing(self._watch(generation)) as events:
            async for event in events:
                yield event

    async def watch(self, generation_id: str) -> AsyncGenerator[Event, None]:
        """Join a generation: its present state, then what happens. To close is to leave.

        Raises:
            GenerationNotFoundError: it does not run, and is not kept.
            SafelightError: what the generation failed with.
        """
        generation = self._find(generation_id)
        self._observer.generation_joined(generation)
        async with aclosing(self._watch(generation)) as events:
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

    async def close(self) -> None:
        """End all generations and forget them."""
        for generation in tuple(self._by_id.values()):
            self._end(generation, StoppingError())
            self._forget(generation)
        await asyncio.gather(*self._storing)
        await self._cache.close()

    def _find(self, generation_id: str) -> Generation:
        generation = self._by_id.get((_owner(), generation_id))
        if generation is None:
            raise GenerationNotFoundError(generation_id)
        return generation

    def _start(self, request: GenerationRequest) -> Generation:
        generation = Generation(_owner(), request.generation_id or uuid.uuid4().hex, request)
        model = request.model or self._backend.default_model
        generation.admitted.enter_context(self._admission.admit(current_caller.get(), model))
        key = generation.owner, generation.id
        if key in self._by_id:
            self._forget(self._by_id[key])
        self._by_id[key] = generation
        self._observer.generation_began(generation)
        self._launch(generation)
        return generation

    async def _watch(self, generation: Generation) -> AsyncGenerator[Event, None]:
        subscription = generation.join()
        if generation.outcome is None:
            self._set_timer(generation, None)
        try:
            while (event := await subscription.get()) is not None:
                yield event
        finally:
            generation.watchers.discard(subscription)
            self._observer.previews_dropped(subscription.dropped_preview_count)
            if generation.outcome is None and not generation.watchers:
                self._leave_alone(generation)

    def _leave_alone(self, generation: Generation) -> None:
        """Cancel a generation that nobody watches, at once or when it has lingered."""
        if generation.request.linger_s > 0:
            self._set_timer(generation, generation.request.linger_s)
        else:
            self._cancel(generation)

    async def _run_execution(self, execution: Execution) -> None:
        """Make the images, or find them made, and end all generations of the execution."""
        try:
            outcome = await self._find_outcome(execution)
        finally:
            self._observer.execution_ended(execution.timeline)
        self._close_to_others(execution)
        for generation in tuple(execution.generations):
            if isinstance(outcome, DeadlineError) and generation.request is not execution.request:
                self._launch(generation)  # it was not its deadline
            elif outcome is not None:
                self._end(generation, outcome)

    async def _find_outcome(self, execution: Execution) -> Completed | SafelightError | None:
        """Return how the making of images ended; None if another execution has taken over."""
        try:
            async with asyncio.timeout(self._settings.max_s) as limit:
                return await self._make_or_find(execution)
        except SafelightError as error:
            return error
        except BaseException as fault:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # its generations have ended already
            is_late = isinstance(fault, TimeoutError) and limit.expired()
            return TimeLimitError(self._settings.max_s) if is_late else report_fault(fault)

    async def _make_or_find(self, execution: Execution) -> Completed | None:
        """Return how it ended; None if another execution has taken over."""
        async with self._backend.prepare(
            execution.request, execution.publish, execution.timeline
        ) as prepared:
            key = self._find_key(execution.request, prepared)
            if key is None:
                return await self._backend.run(prepared, execution.publish)
            other = self._executions.get(key.execution)
            if other is not None:
                for generation in execution.generations:
                    self._observer.generation_shares(generation, other.timeline)
                other.take_over(execution)
                return None
            execution.key = key.execution
            self._executions[execution.key] = execution
            result = await self._cache.get(key.result)
            if result is not None:
                return self._tell_again(execution, prepared.accepted, result)
            completed = await self._backend.run(prepared, execution.publish)
        self._store(key.result, Result(execution.images, completed.step_count))
        return replace(completed, cache=CacheUse.MISS)

    def _find_key(self, request: GenerationRequest, prepared: Prepared) -> "_Key | None":
        """Return what a request has in common with those that get the same images."""
        is_open = request.parameters.seed is None
        if not (request.uses_cache and self._cache.is_enabled):
            return None
        if is_open and not self._cache.replays_unseeded:
            return None
        settled = prepared.accepted.request
        if is_open:
            settled = replace(settled, parameters=replace(settled.parameters, seed=_ANY_SEED))
        key = cache_key(prepared.model_identity, settled)
        return _Key(key, (key, settled.preview))

    def _tell_again(self, execution: Execution, accepted: Accepted, result: Result) -> Completed:
        """Tell what was made before, and how that ended."""
        parameters = replace(accepted.request.parameters, seed=result.images[0].seed)
        execution.publish(
            replace(accepted, request=replace(accepted.request, parameters=parameters))
        )
        for image in result.images:
            execution.publish(image)
        return Completed(execution.timeline.end(), result.step_count, {}, CacheUse.HIT)

    def _store(self, key: str, result: Result) -> None:
        """Put a result into the cache, without anybody waiting for it."""
        storing = asyncio.create_task(self._cache.put(key, result))
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)

    def _close_to_others(self, execution: Execution) -> None:
        """Let nobody else join it."""
        if execution.key is not None:
            self._executions.pop(execution.key, None)
            execution.key = None

    def _launch(self, generation: Generation) -> None:
        """Give a generation an execution of its own."""
        execution = generation.execution = Execution(generation)
        self._observer.execution_began(generation, execution.timeline)
        execution.task = asyncio.create_task(self._run_execution(execution))

    def _cancel(self, generation: Generation) -> None:
        self._end(generation, GenerationCancelledError())

    def _end(self, generation: Generation, outcome: Completed | SafelightError) -> None:
        """The one way out of RUNNING."""
        if generation.outcome is not None:
            return
        generation.end(outcome)
        generation.admitted.close()
        self._log_end(generation)
        execution = generation.execution
        assert execution is not None
        execution.generations.remove(generation)
        if not execution.generations:
            self._close_to_others(execution)
            execution.stop()
        if generation.accepted is None:
            self._forget(generation)
            return
        self._kept[generation] = generation.size_bytes
        self._set_timer(generation, self._settings.keep_s)
        while sum(self._kept.values()) > self._settings.keep_mib << 20:
            self._forget(next(iter(self._kept)))

    def _log_end(self, generation: Generation) -> None:
        """Write the one line of a generation into the log."""
        outcome, accepted = generation.outcome, generation.accepted
        line: dict[str, object] = {"generation_id": generation.id}
        if accepted is not None:
            line |= {"model": accepted.model, "image_count": accepted.request.image_count}
        if generation.owner:
            line["caller"] = generation.owner
        if isinstance(outcome, Completed):
            line |= {"cache": outcome.cache.value, "step_count": outcome.step_count}
            line |= {name: round(each, 4) for name, each in asdict(outcome.timings).items()}
            line["widths"] = dict(outcome.widths)
        else:
            line |= {"error_type": type(outcome).__name__}
            line["total_s"] = round(time.monotonic() - generation.began_at, 4)
        line |= self._observer.generation_ended(generation)
        _log.info("generation_ended", state=generation.state.value, **line)

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
