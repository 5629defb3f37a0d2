"""Execution: makes images once, for all generations that request the same ones.

Generations with equal requests, seeds and cache scopes share an execution. It runs as long as any
of them is RUNNING, in whichever order they end.
"""

import asyncio
import time
from collections.abc import Hashable

from safelight_service.core.events import Accepted, Event, Image, Usage
from safelight_service.core.tenant import Tenant
from safelight_service.core.timeline import Timeline
from safelight_service.generations.state import Generation


class Execution:
    """One run of the backend, and the generations that receive its events."""

    def __init__(self, generation: Generation) -> None:
        self.request = generation.request
        self.timeline = Timeline(generation.began_at, token=generation.owner)
        self.key: Hashable = None
        """Key by which other generations may join it; None if they may not."""
        self.generations = [generation]
        """Its generations, all RUNNING; it stops when none is left."""
        self.task: asyncio.Task[None] | None = None
        self._early: dict[int, Image] = {}
        """Images that were made before one of a lower index, by index."""

    @property
    def cache_owner(self) -> Tenant:
        """The callers that share its images, as the tenant whose share of the cache they take."""
        return Tenant(self.request.cache_scope, self.request.tenant.weight)

    @property
    def is_accepted(self) -> bool:
        """Whether its callers know the resolved request."""
        return any(generation.accepted for generation in self.generations)

    @property
    def present(self) -> tuple[Event, ...]:
        """Events that describe its present state; none once all its generations have ended."""
        return self.generations[0].present if self.generations else ()

    @property
    def images(self) -> tuple[Image, ...]:
        """The images made so far."""
        return tuple(event for event in self.present if isinstance(event, Image))

    def usage_of(self, generation: Generation) -> Usage:
        """Return the work that counts for a generation: all for the first, none for the others."""
        return self.timeline.usage if generation.request is self.request else Usage()

    def stop(self) -> None:
        """Cancel the task, unless the task itself is the caller."""
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def publish(self, event: Event) -> None:
        """Publish an event to all its generations.

        Of several `Accepted` only the first. An image waits for those of lower indices.
        """
        if isinstance(event, Accepted) and self.generations and self.generations[0].accepted:
            return
        if isinstance(event, Image):
            self._early[event.index] = event
            while image := self._early.pop(len(self.images), None):
                self._publish(image)
        else:
            self._publish(event)

    def _publish(self, event: Event) -> None:
        for generation in self.generations:
            generation.publish(event)

    def note_watchers(self) -> None:
        """Record whether any of its generations has watchers."""
        if any(generation.watchers for generation in self.generations):
            self.timeline.abandoned_at = None
        elif self.timeline.abandoned_at is None:
            self.timeline.abandoned_at = time.monotonic()

    def note_joined(self) -> None:
        """Record that watchers besides those of the first call depend on it."""
        self.timeline.joined_at = self.timeline.joined_at or time.monotonic()

    def note_over(self) -> None:
        """Record that nobody will continue it."""
        self.timeline.cancelled_at = time.monotonic()

    def note_cancelled(self, generation: Generation) -> None:
        """Record that nobody will continue it, if it has no generation but a cancelled one."""
        if self.generations == [generation]:
            self.note_over()

    def take_over(self, other: "Execution") -> None:
        """Adopt the generations of another execution, and replay the present state to them."""
        for generation in other.generations:
            generation.execution = self
            for event in self.present:
                generation.publish(event)
        self.generations += other.generations
        other.generations = []
        self.note_joined()
        self.note_watchers()
