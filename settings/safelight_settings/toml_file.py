"""TomlFile: the values of a TOML file and their lines."""

import bisect
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safelight_settings import keys
from safelight_settings.errors import ConfigurationError


class TomlFile:
    """A TOML file in UTF-8, with or without a byte order mark."""

    def __init__(self, file: Path) -> None:
        """Read the file.

        Raises:
            ConfigurationError: the file cannot be read or is not TOML. The message names it.
        """
        self.file = file
        try:
            self._text = file.read_bytes().decode("utf-8-sig")
            self.values: dict[str, Any] = tomllib.loads(self._text)
        except OSError as error:
            raise ConfigurationError(f"cannot read {file}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise ConfigurationError(f"{file}:{line}: must be UTF-8") from None
        except RecursionError:
            raise ConfigurationError(f"{file}: is nested too deeply") from None
        except ValueError as error:  # not TOML, or a number of thousands of digits
            raise ConfigurationError(f"{file}: {error}") from None

    def locate(self, path: keys.Path) -> str:
        """Return the place of a value: `FILE:3: models[0].device`.

        For a missing value, the line is that of the innermost table around it, if any.
        """
        given = path[: keys.depth(self.values, path)]
        place = f"{self.file}:{self._find_line(given)}" if given else f"{self.file}"
        return f"{place}: {keys.write_path(path)}"

    def _find_line(self, path: keys.Path) -> int:
        """Return the first line, from 1, of the first statement that sets a value."""
        lines = [f"{line}\n" for line in self._text.split("\n")]
        ends = list(_end_statements(lines))
        index = bisect.bisect_left(
            ends, len(path), key=lambda end: keys.depth(tomllib.loads("".join(lines[:end])), path)
        )
        return ends[index - 1] + 1 if index else 1


def _end_statements(lines: list[str]) -> Iterator[int]:
    """Yield the line count up to the end of each statement: lines that parse on their own."""
    start = 0
    for end in range(1, len(lines) + 1):
        try:
            tomllib.loads("".join(lines[start:end]))
        except tomllib.TOMLDecodeError:
            continue
        yield end
        start = end
