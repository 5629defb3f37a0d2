"""The output: image files, each written whole or not at all."""

import os
import sys
from itertools import chain, count
from pathlib import Path

from safelight.events import Image

_MIME_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}
_STDOUT = "-"


class Output:
    """Writes the images of a generation.

    Attributes:
        mime_type: MIME type to request; None for the service's default.
        is_stdout: Whether the images go to standard output.
    """

    def __init__(self, name: str | None, image_count: int) -> None:
        """Take the name of a file, `-` for standard output, or None for `safelight-SEED`.

        Raises:
            ValueError: images cannot be written there.
        """
        self.is_stdout = name == _STDOUT
        self._path = None if name is None or self.is_stdout else Path(name)
        self._is_numbered = image_count > 1
        if self.is_stdout and image_count > 1:
            raise ValueError("standard output takes one image only")
        if self.is_stdout and sys.stdout is None:
            raise ValueError("standard output is closed; name a file")
        if self.is_stdout and sys.stdout.isatty():
            raise ValueError("standard output is a terminal; redirect it or name a file")
        if self._path and self._path.suffix.lower() not in _MIME_TYPES:
            raise ValueError(f"{name!r} must end in one of {', '.join(_MIME_TYPES)}")
        if self._path and not self._path.parent.is_dir():
            raise ValueError(f"the folder '{self._path.parent}' does not exist")
        if self._path and self._path.is_dir():
            raise ValueError(f"{name!r} is a folder")
        folder = self._path.parent if self._path else Path()
        if not self.is_stdout and not os.access(folder, os.W_OK):
            raise ValueError(f"the folder '{folder.absolute()}' is not writable")
        self.mime_type = _MIME_TYPES[self._path.suffix.lower()] if self._path else None

    def write(self, image: Image) -> str:
        """Write an image and return the name of its file."""
        if self.is_stdout:
            sys.stdout.buffer.write(image.data)
            sys.stdout.buffer.flush()
            return _STDOUT
        path = self._path_of(image)
        # Renamed when complete: the file never holds a part of an image.
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(image.data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return str(path)

    def _path_of(self, image: Image) -> Path:
        if self._path is None:
            return _first_free(Path(f"safelight-{image.seed}.png"))
        if self._is_numbered:
            return self._path.with_stem(f"{self._path.stem}-{image.image_index}")
        return self._path


def _first_free(path: Path) -> Path:
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(candidate for candidate in chain([path], numbered) if not candidate.exists())
