"""Errors of model folders: reasons for which a model is not loaded."""

from pathlib import Path


class UnsafeModelError(Exception):
    """A model is refused; the message names the file, relative to its folder, and the reason."""

    def __init__(self, file: Path | str, reason: str) -> None:
        super().__init__(f"{file}: {reason}")


class ModelFolderError(Exception):
    """A model cannot be loaded; the message names component, file and the setting that helps."""


_OF_CODE = (AttributeError, LookupError, TypeError)
"""Errors whose text alone says nothing, such as that of a KeyError."""


def explain(error: Exception) -> str:
    """Return the text of a library's error, with its class where the text alone says nothing."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if isinstance(error, _OF_CODE) or not text else text
