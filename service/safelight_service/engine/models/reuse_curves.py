"""ReuseCurves: measured errors of step reuse by model and scheduler, in one JSON file."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

_log = structlog.get_logger()

CURVES_FILE = "step_reuse.json"
"""Name of the file beside `batching.profiles_file`."""

Curves = Mapping[str, Sequence[float]]
"""Errors of an image by the name of its scheduler: of reusing only the step at each place."""


class ReuseCurves:
    """Curves by model; an unreadable file counts as empty, with a warning."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def get(self, identity: str) -> Curves:
        """Return the curves of a model; none if it has not been calibrated."""
        curves = self._read().get(_key(identity), {})
        return {name: tuple(map(float, errors)) for name, errors in curves.items()}

    def put(self, identity: str, scheduler: str, errors: Sequence[float]) -> None:
        """Store a curve of a model.

        Raises:
            OSError: the file cannot be written.
        """
        assert self._path is not None
        known = self._read()
        known.setdefault(_key(identity), {})[scheduler] = list(errors)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(known, file, indent=1)
        Path(aside).replace(self._path)

    def _read(self) -> dict[str, dict[str, list[float]]]:
        if self._path is None or not self._path.exists():
            return {}
        try:
            return dict(json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            _log.warning("reuse_curves_unreadable", path=str(self._path))
            return {}


def _key(identity: str) -> str:
    return hashlib.sha256(identity.encode()).hexdigest()
