"""The displays: a live bar for a terminal, a few lines for a log."""

import sys
from collections.abc import Hashable, Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from safelight.cli.half_blocks import HalfBlocks
from safelight.cli.phases import PhaseTracker
from safelight.events import Event, Image, Preview


class LogDisplay:
    """Writes a line at the start of each phase and at each quarter of an image."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._tracker = PhaseTracker()
        self._milestone: Hashable = None

    def show(self, event: Event) -> None:
        """Show an event."""
        phase = self._tracker.follow(event)
        if phase is not None and phase.milestone != self._milestone:
            self._milestone = phase.milestone
            self._console.print(", ".join(filter(None, (phase.text, phase.detail))))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Keep the lines."""


class TerminalDisplay:
    """Shows a bar, and below it the latest picture if `has_pictures`."""

    def __init__(self, console: Console, has_pictures: bool) -> None:
        self._tracker = PhaseTracker()
        self._has_pictures = has_pictures
        self._bar = _BarOverPicture(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            # Otherwise rich redirects standard output to the console's stream.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("connecting", total=None, detail="")

    def show(self, event: Event) -> None:
        """Show an event."""
        phase = self._tracker.follow(event)
        if phase is not None:
            self._bar.update(
                self._task,
                description=phase.text,
                detail=phase.detail,
                completed=phase.share or 0,
                total=None if phase.share is None else 1,
            )
        if self._has_pictures and isinstance(event, Preview | Image):
            self._bar.picture = HalfBlocks(event.pil)

    def __rich__(self) -> RenderableType:
        """Return the present lines."""
        return self._bar.get_renderable()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Keep the last state."""
        self._bar.stop()


class _BarOverPicture(Progress):
    picture: HalfBlocks | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.picture is not None:
            yield self.picture
