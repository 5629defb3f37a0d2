"""Errors of model folders: reasons for which a model is not loaded."""

from pathlib import Path


class UnsafeModelError(Exception):
    """A model is refused; the message names the file, relative to its folder, and the reason."""

    def __init__(self, file: Path | str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")


class ModelFolderError(Exception):
    """A model cannot be loaded; the message names component, file and the setting that helps."""
