"""Recorder: figures as JSON lines, each written to disk at once."""

import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEXT_LENGTH = 300
_FRAMES = 4


class Recorder:
    """Appends the figures of one stage to a file, and shows them on the terminal.

    `began_at` is the start of the run by `time.monotonic`; `echo_to` is the terminal's file
    descriptor.
    """

    def __init__(self, file: Path, stage: str, began_at: float, echo_to: int | None = None) -> None:
        self.stage = stage
        self._file = file
        self._began_at = began_at
        self._echo_to = echo_to

    def write(self, name: str, **values: object) -> None:
        """Append a line: seconds since the start of the run, stage, name and values."""
        t = round(time.monotonic() - self._began_at, 2)
        figure = {"t": t, "stage": self.stage, "name": name, **values}
        line = (json.dumps(figure, default=str) + "\n").encode()
        # A single unbuffered write: lines of two processes never mix, and a kill loses none.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
        if self._echo_to is not None:
            os.write(self._echo_to, line)

    @contextmanager
    def figure(self, name: str, **conditions: object) -> Iterator[dict[str, object]]:
        """Yield a dictionary for measurements under these conditions; write it at the end.

        Records an exception in it and suppresses it, so that the next figure is still measured.
        """
        measured: dict[str, object] = {}
        began_at = time.monotonic()
        try:
            yield measured
        except Exception as error:
            measured |= describe_error(error)
        took_s = round(time.monotonic() - began_at, 2)
        self.write(name, **conditions, **measured, took_s=took_s)

    @contextmanager
    def attempt(self, name: str, **conditions: object) -> Iterator[None]:
        """Run a preparation for figures; record only an exception, and suppress it."""
        try:
            yield
        except Exception as error:
            self.write(name, **conditions, **describe_error(error))


def describe_error(error: BaseException) -> dict[str, object]:
    """Return the type of an exception, the start of its text, and its innermost frames."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return {
        "error": type(error).__name__,
        "text": str(error)[:_TEXT_LENGTH],
        "where": [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames],
    }
