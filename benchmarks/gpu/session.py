"""Session: what all stages of a run share."""

from dataclasses import dataclass
from pathlib import Path

_SHRINK = 8
_REHEARSED_COUNT = 2


@dataclass(frozen=True, slots=True)
class Session:
    """Where a run writes, and whether it measures on a GPU or rehearses on the CPU.

    A rehearsal takes the same path with shrunk architectures, small images and few steps.
    """

    folder: Path
    is_rehearsal: bool
    began_at: float
    """By `time.monotonic`."""
    torchao: Path | None = None
    """Folder to import torchao from; None: from where everything else is."""

    @property
    def results(self) -> Path:
        """The file of figures, one JSON object a line."""
        return self.folder / "results.jsonl"

    @property
    def log(self) -> Path:
        """The file that stages print to."""
        return self.folder / "log.txt"

    @property
    def device(self) -> str:
        """Name of the torch device to measure."""
        return "cpu" if self.is_rehearsal else "cuda"

    def side(self, side_px: int) -> int:
        """Return the side of an image in pixels, as it is or for a rehearsal."""
        return side_px // _SHRINK if self.is_rehearsal else side_px

    def few(self, count: int) -> int:
        """Return a count of steps, rounds or runs, as it is or at most a rehearsal's few."""
        return min(count, _REHEARSED_COUNT) if self.is_rehearsal else count

    def crowd(self, count: int) -> int:
        """Return a count of callers or images at once, as it is or a third of it."""
        return -(-count // 3) if self.is_rehearsal else count
