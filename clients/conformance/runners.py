"""Runners: the programs around the clients under test, as `runner.json` describes them."""

import fnmatch
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = (
    "clients/*/runner.json",
    "clients/*/*/runner.json",
    "examples/*/runner.json",
    "examples/*/*/runner.json",
)
_KEYS = {"name", "command", "needs", "build", "known_failures", "through", "vectors"}
_PROXIES = (None, "gateway")


class BuildError(Exception):
    """A runner cannot be built."""


@dataclass(frozen=True, slots=True)
class Runner:
    """A runner; clients/conformance/README.md describes the attributes."""

    folder: Path
    name: str
    command: Sequence[str]
    needs: Sequence[Sequence[str]]
    build_command: Sequence[str]
    known_failures: Mapping[str, str]
    through: str | None
    vectors: Sequence[str]

    def find_missing(self) -> str | None:
        """Return the first command that its toolchain fails, or None if it is installed."""
        for command in self.needs:
            try:
                subprocess.run(command, cwd=self.folder, capture_output=True, check=True)
            except (OSError, subprocess.CalledProcessError):
                return " ".join(command)
        return None

    def plays(self, vector: str) -> bool:
        """Return whether the kit plays the vector of this name to it."""
        return any(fnmatch.fnmatchcase(vector, pattern) for pattern in self.vectors)

    def build(self) -> None:
        """Build the runner.

        Raises:
            BuildError: the build failed; the message is its output.
        """
        if not self.build_command:
            return
        built = subprocess.run(
            self.build_command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if built.returncode:
            raise BuildError(built.stdout[-4000:])


def find_runners(root: Path = ROOT) -> list[Runner]:
    """Return the runners of all languages below a folder, by name.

    Raises:
        ValueError: a `runner.json` has an unknown key, or an unknown proxy.
        KeyError: a `runner.json` lacks a key.
    """
    runners = []
    for pattern in PATTERNS:
        for path in root.glob(pattern):
            found = json.loads(path.read_text("utf-8"))
            runners += [_read(path, each) for each in (found if type(found) is list else [found])]
    return sorted(runners, key=lambda runner: runner.name)


def _read(path: Path, entry: dict[str, Any]) -> Runner:
    if unknown := entry.keys() - _KEYS:
        raise ValueError(f"{path} has unknown keys: {', '.join(sorted(unknown))}")
    if entry.get("through") not in _PROXIES:
        raise ValueError(f"{path} goes through {entry['through']!r}, which is unknown")
    return Runner(
        folder=path.parent,
        name=entry["name"],
        command=entry["command"],
        needs=entry.get("needs", ()),
        build_command=entry.get("build", ()),
        known_failures=entry.get("known_failures", {}),
        through=entry.get("through"),
        vectors=entry.get("vectors", ("*",)),
    )
