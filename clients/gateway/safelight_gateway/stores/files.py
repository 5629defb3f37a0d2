"""Files: linked images, kept in memory for a limited time."""

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

from safelight import Image

from safelight_gateway.settings import FileSettings

SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_NAME_BYTES = 24


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An image. Its unguessable name is all that a client needs to fetch it."""

    data: bytes
    mime_type: str
    expires_at_s: float


class FileStore:
    """Stores images under unguessable names, bounded in time and memory."""

    def __init__(self, settings: FileSettings) -> None:
        self._keep_s = settings.keep_s
        self._capacity_bytes = settings.keep_mib * 2**20
        self._size_bytes = 0
        self._files: OrderedDict[str, StoredFile] = OrderedDict()

    def put(self, image: Image) -> str:
        """Store an image; return its name, such as `Zm9v....png`."""
        name = f"{secrets.token_urlsafe(_NAME_BYTES)}.{SUFFIXES[image.mime_type]}"
        file = StoredFile(image.data, image.mime_type, time.monotonic() + self._keep_s)
        self._files[name] = file
        self._size_bytes += len(file.data)
        self._drop_expired()
        while self._size_bytes > self._capacity_bytes and len(self._files) > 1:
            self._drop_oldest()
        return name

    def get(self, name: str) -> StoredFile | None:
        """Return a file; None if it is unknown or expired."""
        self._drop_expired()
        return self._files.get(name)

    def _drop_expired(self) -> None:
        now = time.monotonic()
        # All files live equally long, so the oldest expires first.
        while self._files and next(iter(self._files.values())).expires_at_s <= now:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, file = self._files.popitem(last=False)
        self._size_bytes -= len(file.data)
