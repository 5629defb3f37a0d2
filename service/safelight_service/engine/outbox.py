"""Outbox: where the engine's threads put what happens to a generation."""

from concurrent.futures import Future
from typing import Protocol

from safelight_service.generation import Event


class Outbox(Protocol):
    """A mailbox as seen by those who post; `mailbox.py` describes the methods."""

    def post(self, event: Event) -> None:
        """Add an event."""

    def post_image(self, image_index: int, image: Future[Event]) -> None:
        """Add that image, which is being encoded."""

    def post_preview(self, image_index: int, preview: Future[Event]) -> None:
        """Add a preview of that image that is being encoded."""

    def close(self, error: BaseException | None = None) -> None:
        """End, with an error where there was one."""
