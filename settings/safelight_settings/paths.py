"""Paths: settings that name files and folders."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from safelight_settings import keys


def expand_home(path: Path) -> Path:
    """Return a path with `~` expanded, or raise a ValueError where there is no home folder."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            f"cannot expand ~ in {path}, since there is no such home folder: set HOME, or give an "
            "absolute path"
        ) from None


def _require(path: Path) -> Path:
    if path == Path():
        raise ValueError("must name a file")
    return expand_home(path)


def _allow_empty(path: Path | None) -> Path | None:
    return None if path in (None, Path()) else expand_home(path)


class PathField:
    """Metadata of a field that holds a path, which a file gives relative to its own folder."""

    def resolve(self, value: str, folder: Path) -> str:
        """Return the value as the path that it means in a file in `folder`, which is absolute."""
        return value if not value or value.startswith("~") else str(folder / value)


ConfigPath = Annotated[Path, AfterValidator(_require), PathField()]
"""A path, `~` being the home folder. An empty one is refused, lest it turn a check off."""

OptionalPath = Annotated[Path | None, AfterValidator(_allow_empty), PathField()]
"""A path, `~` being the home folder; None where it is empty or unset."""


def resolve_paths(
    model: type[BaseModel], values: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Return the values of a file with relative paths resolved against its folder."""
    fields = model.model_fields
    return {
        key: _resolve_value(fields[key], value, folder) if key in fields else value
        for key, value in values.items()
    }


def _resolve_value(field: FieldInfo, value: Any, folder: Path) -> Any:
    table = keys.find_table(field.annotation)
    if isinstance(value, list):
        return [_resolve_value(field, each, folder) for each in value]
    if isinstance(value, Mapping):
        return resolve_paths(table, value, folder) if table else value
    marker = next(_find_markers(field), None)
    return marker.resolve(value, folder) if marker and isinstance(value, str) else value


def _find_markers(field: FieldInfo) -> Iterator[PathField]:
    """Find what marks a field as a path, in `Annotated[Path, …]` and in that `| None`."""
    annotations = [each for each in get_args(field.annotation) if get_origin(each) is Annotated]
    metadata = [*field.metadata, *(part for each in annotations for part in each.__metadata__)]
    return (part for part in metadata if isinstance(part, PathField))
