"""The phases of a generation, in words and as a share."""

from collections.abc import Hashable
from dataclasses import dataclass

from safelight.events import (
    Accepted,
    Completed,
    Event,
    Image,
    ModelLoading,
    Preview,
    Progress,
    Queued,
    Restarted,
)


@dataclass(frozen=True, slots=True)
class Phase:
    """The present phase of a generation.

    Attributes:
        text: Name of the phase.
        detail: Rate and remaining time; may be empty.
        share: Completed share, in [0, 1]; None if unknown.
        milestone: Changes when a log should have a new line.
    """

    text: str
    detail: str
    share: float | None
    milestone: Hashable


class PhaseTracker:
    """Follows a generation by its events."""

    def __init__(self) -> None:
        self._image_count = 1
        self._steps: dict[int, int] = {}
        self._seed: int | None = None

    def follow(self, event: Event) -> Phase | None:
        """Return the phase that the event begins or continues; None for other events."""
        match event:
            case Accepted():
                self._image_count = event.image_count
                self._seed = event.parameters.seed
                return None
            case ModelLoading():
                return Phase(
                    f"loading {event.model}",
                    f"for {_duration(event.elapsed_s)}",
                    event.fraction,
                    ModelLoading,
                )
            case Queued():
                wait = event.estimated_wait_s
                detail = "" if wait is None else f"about {_duration(wait)}"
                return Phase(
                    f"waiting at position {event.position}", detail, None, (Queued, event.position)
                )
            case Restarted():
                self._steps.clear()
                recovered = event.recovered_step_count
                detail = f"{recovered} steps recovered" if recovered else ""
                return Phase("restarted", detail, None, (Restarted, event.restart_count))
            case Progress():
                return self._follow_progress(event)
            case Completed():
                spent = f"{event.timings.total_s:.1f} s"
                detail = f"{event.step_count} steps in {spent}, seed {self._seed}"
                return Phase("done", detail, 1, Completed)
            case Preview() | Image():
                return None

    def _follow_progress(self, event: Progress) -> Phase:
        self._steps[event.image_index] = event.step
        done = sum(self._steps.values())
        total = event.step_count * self._image_count
        several = f"{self._image_count} images, " if self._image_count > 1 else ""
        return Phase(
            f"{several}step {done}/{total}",
            f"{_rate(done, event.elapsed_s)}, {_duration(event.estimated_remaining_s)} left",
            done / total,
            (Progress, 4 * done // total),
        )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _rate(steps: int, seconds: float) -> str:
    if seconds <= 0:
        return "- it/s"
    rate = steps / seconds
    return f"{rate:.1f} it/s" if rate >= 1 else f"{1 / rate:.1f} s/it"
