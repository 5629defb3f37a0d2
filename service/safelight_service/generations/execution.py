"""Execution: makes images once, for all generations that request the same ones.

Generations with equal requests, seeds and cache scopes share an execution. It runs as long as any
of them is RUNNING, in whichever order they end.
"""

import asyncio
import time
from collections.abc import Hashable

from safelight_service.core.events import Event, Image
from safelight_service.core.tenant import Tenant
from safelight_service.core.timeline import Timeline
from safelight_service.generations.state import Generation


class Execution:
    """One run of the backend, and the generations that receive its events."""

    def __init__(self, generation: Generation) -> None:
        self.request = generation.request
        self.timeline = Timeline(generation.began_at)
        self.key: Hashable = None
        """Key by which other generations may join it; None if they may not."""
        self.generations = [generation]
        """Its generations, all RUNNING; it stops when none is left."""
        self.task: asyncio.Task[None] | None = None

    @property
    def cache_owner(self) -> Tenant:
        """The callers that share its images, as the tenant whose share of the cache they take."""
        return Tenant(self.request.cache_scope, self.request.tenant.weight)

    @property
    def images(self) -> tuple[Image, ...]:
        """The images made so far."""
        return tuple(event for event in self.generations[0].present if isinstance(event, Image))

    def stop(self) -> None:
        """Cancel the task, unless the task itself is the caller."""
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def publish(self, event: Event) -> None:
        """Publish an event to all its generations."""
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

    def take_over(self, other: "Execution") -> None:
        """Adopt the generations of another execution, and replay the present state to them."""
        present = self.generations[0].present
        for generation in other.generations:
            generation.execution = self
            for event in present:
                generation.publish(event)
        self.generations += other.generations
        other.generations = []
        self.note_joined()
        self.note_watchers()
