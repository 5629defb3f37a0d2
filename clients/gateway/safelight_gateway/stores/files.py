"""Files: linked images, kept in memory for a limited time."""

import secrets
import time
from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass

from safelight import Image

from safelight_gateway.settings import FileSettings

SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}
_NAME_BYTES = 24
_OVERHEAD_BYTES = 1024
"""Memory of an entry besides the image, rounded up."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An image. Its unguessable name is all that a client needs to fetch it."""

    data: bytes
    mime_type: str
    holder: str
    expires_at_s: float

    @property
    def size_bytes(self) -> int:
        """Memory that it takes."""
        return len(self.data) + _OVERHEAD_BYTES


class FileStore:
    """Stores images under unguessable names, bounded in time and memory.

    Beyond its memory, the holder with the most loses its oldest image. So nobody's links break
    because of others that store more.
    """

    def __init__(self, settings: FileSettings) -> None:
        self._keep_s = settings.keep_s
        self._capacity_bytes = settings.keep_mib * 2**20
        self._sizes: Counter[str] = Counter()
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self._names: defaultdict[str, dict[str, None]] = defaultdict(dict)
        """Names of each holder's files, the oldest first."""

    def put(self, image: Image, holder: str) -> str:
        """Store an image that counts for a holder; return its name, such as `Zm9v....png`."""
        self._drop_expired()
        name = f"{secrets.token_urlsafe(_NAME_BYTES)}.{SUFFIXES[image.mime_type]}"
        file = StoredFile(image.data, image.mime_type, holder, time.monotonic() + self._keep_s)
        self._files[name] = file
        self._names[holder][name] = None
        self._sizes[holder] += file.size_bytes
        while self._sizes.total() > self._capacity_bytes and len(self._files) > 1:
            largest = max(self._sizes, key=self._sizes.__getitem__)
            self._drop(next(iter(self._names[largest])))
        return name

    def get(self, name: str) -> StoredFile | None:
        """Return a file; None if it is unknown or expired."""
        self._drop_expired()
        return self._files.get(name)

    def _drop_expired(self) -> None:
        now = time.monotonic()
        # All files live equally long, so the oldest expires first.
        while self._files:
            name, file = next(iter(self._files.items()))
            if file.expires_at_s > now:
                break
            self._drop(name)

    def _drop(self, name: str) -> None:
        file = self._files.pop(name)
        del self._names[file.holder][name]
        self._sizes[file.holder] -= file.size_bytes
        if not self._names[file.holder]:
            del self._names[file.holder], self._sizes[file.holder]
