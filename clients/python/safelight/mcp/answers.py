"""The answers of the tools: images, facts, progress and errors."""

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import Any

from mcp_types import CallToolResult, ImageContent, TextContent

from safelight.errors import (
    InvalidRequestError,
    SafelightError,
    ServiceError,
    ServiceUnavailableError,
)
from safelight.events import Accepted, Completed, Event, Image, ModelLoading, Progress, Queued
from safelight.mcp.arguments import argument_of
from safelight.models import Model

ReportProgress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Reports progress, its total and a message."""


class GenerationProgress:
    """The progress of a generation, in steps of all its images."""

    def __init__(self, report: ReportProgress) -> None:
        self._report = report
        self._image_count = 1
        self._steps: dict[int, int] = {}
        self._last = -1

    async def note(self, event: Event) -> None:
        """Report what an event changes. MCP wants rising numbers, so only the first wait counts."""
        match event:
            case Accepted():
                self._image_count = event.image_count
            case ModelLoading():
                await self._rise(0, None, f"model {event.model} is being loaded")
            case Queued():
                await self._rise(0, None, f"waiting at position {event.position}")
            case Progress():
                self._steps[event.image_index] = event.step
                done, total = sum(self._steps.values()), event.step_count * self._image_count
                await self._rise(done, total, f"step {done} of {total}")

    async def _rise(self, done: int, total: int | None, message: str) -> None:
        if done > self._last:
            self._last = done
            await self._report(done, total, message)


def show_images(
    accepted: Accepted, images: Sequence[Image], completed: Completed
) -> CallToolResult:
    """Return the images, and the facts about them as text and as structured content."""
    facts = {
        "generation_id": accepted.generation_id,
        "model": accepted.model,
        "parameters": asdict(accepted.parameters),
        "images": [
            {
                "seed": image.seed,
                "width": image.width,
                "height": image.height,
                "mime_type": image.mime_type,
                "is_flagged": image.is_flagged,
            }
            for image in images
        ],
        "cache": completed.cache.value,
        "total_s": completed.timings.total_s,
    }
    shown = [
        ImageContent(data=base64.b64encode(image.data).decode(), mime_type=image.mime_type)
        for image in images
    ]
    return CallToolResult(content=[*shown, _text(json.dumps(facts))], structured_content=facts)


def show_models(models: Sequence[Model]) -> CallToolResult:
    """Return the models as text and as structured content."""
    facts: dict[str, Any] = {"models": [asdict(model) for model in models]}
    return CallToolResult(content=[_text(json.dumps(facts))], structured_content=facts)


def show_error(error: SafelightError | ValueError) -> CallToolResult:
    """Return an error for the model to read, with the names of the arguments."""
    return CallToolResult(content=[_text(_explain(error))], is_error=True)


def _explain(error: SafelightError | ValueError) -> str:
    if isinstance(error, InvalidRequestError) and error.violations:
        return "\n".join(
            f"{argument_of(violation.field)}: {violation.description}"
            for violation in error.violations
        )
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        return f"{error} (try again in {error.retry_after_s:.0f} s)"
    if isinstance(error, ServiceUnavailableError) and error.reason is None:
        return f"cannot reach the service: {error}"
    return str(error)


def _text(text: str) -> TextContent:
    return TextContent(text=text)
