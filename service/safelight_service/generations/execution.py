"""Execution: the making of images, once, for all generations that ask for the same ones.

Generations that ask for the same images, by the same seed, share an execution. It goes on for as
long as any of them is RUNNING, whichever came first.
"""

import asyncio
from collections.abc import Hashable

from safelight_service.core.events import Event, Image
from safelight_service.core.timeline import Timeline
from safelight_service.generations.state import Generation


class Execution:
    """The making of images, once, for all generations that ask for the same ones."""

    def __init__(self, generation: Generation) -> None:
        self.request = generation.request
        self.timeline = Timeline(generation.began_at)
        self.key: Hashable = None
        """What others may join it by, while they may."""
        self.generations = [generation]
        """Those that are RUNNING; it stops when there are none."""
        self.task: asyncio.Task[None] | None = None

    @property
    def images(self) -> tuple[Image, ...]:
        """Those that have been made."""
        return tuple(event for event in self.generations[0].present if isinstance(event, Image))

    def stop(self) -> None:
        """Make no more images, unless it is the execution itself that asks."""
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def publish(self, event: Event) -> None:
        """Tell an event to all of them."""
        for generation in self.generations:
            generation.publish(event)

    def take_over(self, other: "Execution") -> None:
        """Make the images of another execution's generations, too."""
        present = self.generations[0].present
        for generation in other.generations:
            generation.execution = self
            for event in present:
                generation.publish(event)
        self.generations += other.generations
        other.generations = []
