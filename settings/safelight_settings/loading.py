"""Loading: merge the sources of settings by precedence, and validate the result."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from safelight_settings import keys
from safelight_settings.environment import Environment
from safelight_settings.errors import ConfigurationError
from safelight_settings.paths import expand_home, resolve_paths
from safelight_settings.problems import describe_problems
from safelight_settings.tables import ProgramSettings
from safelight_settings.toml_file import TomlFile

Settings = TypeVar("Settings", bound=ProgramSettings)


class _Source(NamedTuple):
    values: Mapping[str, Any]
    locate: Callable[[keys.Path], str]


def load(
    model: type[Settings],
    options: Mapping[str, object] | None = None,
    config_file: Path | None = None,
    foreign: re.Pattern[str] | None = None,
) -> Settings:
    """Load the settings of a program.

    Args:
        model: class of the settings, with their environment prefix.
        options: settings from the command line, by name.
        config_file: TOML file. None: the file that the variable PREFIX_CONFIG names, if any.
        foreign: variables with the prefix that belong to other programs.

    Raises:
        ConfigurationError: a source cannot be read, or has an unknown key or a bad value. The
            message has one line for each problem.
    """
    environment = Environment(model, foreign)
    sources = [
        _Source(options or {}, _write_option),
        _Source(environment.values, environment.locate),
    ]
    if file := _open_file(config_file, environment):
        values = resolve_paths(model, file.values, file.file.parent.absolute())
        sources.append(_Source(values, file.locate))
    merged: Mapping[str, Any] = _list_tables(model)
    for source in reversed(sources):
        merged = _merge(merged, source.values)
    try:
        return model(**merged)
    except ValidationError as error:
        lines = describe_problems(error, model, lambda path: _locate(sources, path))
        raise ConfigurationError("\n".join(lines)) from None


def _open_file(option: Path | None, environment: Environment) -> TomlFile | None:
    """Open the file that the command line names, else the one that the environment names."""
    name, file = "--config", option
    if file is None and environment.config_file:
        name, file = environment.config_variable, Path(environment.config_file)
    if file is None:
        return None
    try:
        return TomlFile(expand_home(file))
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}") from None


def _write_option(path: keys.Path) -> str:
    name, *rest = path
    option = f"--{str(name).replace('_', '-')}"
    return f"{option}: {keys.write_path(path)}" if rest else option


def _locate(sources: list[_Source], path: keys.Path) -> str:
    """Return the place of a setting in the source that sets it or the innermost table around it."""
    closest = max(sources, key=lambda source: keys.depth(source.values, path))
    return closest.locate(path) if keys.depth(closest.values, path) else keys.write_path(path)


def _list_tables(model: type[BaseModel]) -> dict[str, Any]:
    """Return an empty value for each table, so that errors in its defaults name the table."""
    return {
        name: {}
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _merge(weak: Mapping[str, Any], strong: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings recursively; `strong` takes precedence."""
    merged = {**weak, **strong}
    for key in weak.keys() & strong.keys():
        if isinstance(weak[key], Mapping) and isinstance(strong[key], Mapping):
            merged[key] = _merge(weak[key], strong[key])
    return merged
