"""Sources: folders, and repositories of the Hub."""

import re
from pathlib import Path
from typing import NamedTuple

from safelight_settings import PathField

EMBEDDED_MODEL = "shapes"
"""Name, and `source`, of the model that ships with the service."""

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
HUB_REVISION = re.compile(rf"({HUB_ID.pattern})(?:@([\w./-]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")


class Source(PathField):
    """Metadata of a source: a path, unless it is a Hub id or names the embedded model."""

    def resolve(self, value: str, folder: Path) -> str:
        """Return the source as seen from a file in `folder`."""
        is_path = not HUB_ID.fullmatch(value) or (folder / value).is_dir()
        return super().resolve(value, folder) if is_path and value != EMBEDDED_MODEL else value


class PinnedSource(PathField):
    """Metadata of a source with its revision: a path, or a Hub id (`owner/name@COMMIT`)."""

    def resolve(self, value: str, folder: Path) -> str:
        """Return the source as seen from a file in `folder`."""
        is_path = not HUB_REVISION.fullmatch(value) or (folder / value).is_dir()
        return super().resolve(value, folder) if is_path else value


class HubId(NamedTuple):
    """A repository of the Hub, and its revision: a commit, a tag, a branch, or empty."""

    repository: str
    revision: str
