"""Session: the folder and scale shared by all stages of a run."""

from dataclasses import dataclass
from pathlib import Path

_SHRINK = 8
_REHEARSED_COUNT = 2


@dataclass(frozen=True, slots=True)
class Session:
    """Folder and scale of a run, which measures on a GPU or rehearses on the CPU.

    A rehearsal runs the same code with shrunk architectures, small images and few steps.
    """

    folder: Path
    is_rehearsal: bool
    began_at: float
    """Start of the run, by `time.monotonic`."""
    torchao: Path | None = None
    """Folder to import torchao from; None if it is installed."""

    @property
    def results(self) -> Path:
        """File of figures, one JSON object a line."""
        return self.folder / "results.jsonl"

    @property
    def log(self) -> Path:
        """File for the output of the stages."""
        return self.folder / "log.txt"

    @property
    def device(self) -> str:
        """Name of the torch device to measure."""
        return "cpu" if self.is_rehearsal else "cuda"

    def side(self, side_px: int) -> int:
        """Return an image side in pixels, reduced in a rehearsal."""
        return side_px // _SHRINK if self.is_rehearsal else side_px

    def few(self, count: int) -> int:
        """Return a count of steps, rounds or runs, capped in a rehearsal."""
        return min(count, _REHEARSED_COUNT) if self.is_rehearsal else count

    def crowd(self, count: int) -> int:
        """Return a count of simultaneous callers or images, divided by three in a rehearsal."""
        return -(-count // 3) if self.is_rehearsal else count
