"""What the tables of the settings have in common."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class ConfigurationError(ValueError):
    """A file that a setting names cannot be used; the message names the setting."""


class Table(BaseModel):
    """Settings that belong together: a table of the TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def check_address(listen: str) -> str:
    """Return an address to listen on, or raise a ValueError that says how one is written."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+):(\d{1,5})", listen)
    if not match or int(match[2]) > 65535:
        raise ValueError(f"must be HOST:PORT with a port from 0 to 65535, not {listen!r}")
    return listen


def _find_home(path: Path | None) -> Path | None:
    return None if path in (None, Path()) else path.expanduser()


OptionalPath = Annotated[Path | None, AfterValidator(_find_home)]
"""A path below which `~` is the home folder; empty is none."""
