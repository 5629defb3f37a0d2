"""Paths: settings that name files and folders."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from safelight_settings import keys


def expand_home(path: Path) -> Path:
    """Expand `~`; raise ValueError if there is no such home folder."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(
            f"cannot expand ~ in {path}: there is no such home folder; set HOME, or use an "
            "absolute path"
        ) from None


def _require(path: Path) -> Path:
    if path == Path():
        raise ValueError("must name a file")
    return expand_home(path)


def _allow_empty(path: Path | None) -> Path | None:
    return None if path in (None, Path()) else expand_home(path)


def default_cache(name: str) -> Callable[[], Path | None]:
    """Return the default factory of a path in `~/.cache/safelight`: None without a home folder."""

    def find() -> Path | None:
        try:
            return expand_home(Path("~/.cache/safelight", name))
        except ValueError:
            return None

    return find


class PathField:
    """Metadata of a path setting: in a file, relative paths start at the file's folder."""

    def resolve(self, value: str, folder: Path) -> str:
        """Return the path that `value` denotes in a file in `folder`, an absolute path."""
        return value if not value or value.startswith("~") else str(folder / value)


ConfigPath = Annotated[Path, AfterValidator(_require), PathField()]
"""A path; `~` is the home folder. Empty is an error, so that it cannot disable a check."""

OptionalPath = Annotated[Path | None, AfterValidator(_allow_empty), PathField()]
"""A path; `~` is the home folder. Empty becomes None."""


def resolve_paths(
    model: type[BaseModel], values: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Return a file's values, with relative paths resolved against its folder."""
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
        if table:
            return resolve_paths(table, value, folder)
        return {key: _resolve_value(field, each, folder) for key, each in value.items()}
    marker = next(_find_markers(field), None)
    return marker.resolve(value, folder) if marker and isinstance(value, str) else value


def _find_markers(field: FieldInfo) -> Iterator[PathField]:
    """Find path markers in `Annotated[Path, ...]` and in `Annotated[Path, ...] | None`."""
    annotations = [each for each in get_args(field.annotation) if get_origin(each) is Annotated]
    metadata = [*field.metadata, *(part for each in annotations for part in each.__metadata__)]
    return (part for part in metadata if isinstance(part, PathField))
