"""Client: the reference of the Python client, whose docstrings mkdocstrings renders."""

from collections import defaultdict
from collections.abc import Iterator

import griffe

_PACKAGE, _PROVENANCE = "safelight", "safelight.provenance"
_HIDDEN = "__version__"
_CLIENTS = "Clients"
_INTRODUCTION = """\
# Python client

The names of the packages `safelight` and `safelight.provenance`. [Quickstart](../quickstart.md)
shows them in use."""


def render() -> str:
    """Return the page of all names that the package exports."""
    return "\n\n".join(_blocks()) + "\n"


def _blocks() -> Iterator[str]:
    yield _INTRODUCTION
    package = griffe.load(_PACKAGE)
    sections = defaultdict(list)
    for name in sorted({str(name) for name in package.exports or ()} - {_HIDDEN}):
        sections[_title(package[name].target_path)].append(name)
    for title in sorted(sections, key=lambda title: (title != _CLIENTS, title)):
        yield f"## {title}"
        yield from (f"::: {_PACKAGE}.{name}" for name in sections[title])
    yield "## Provenance"
    names = sorted(map(str, griffe.load(_PROVENANCE).exports or ()))
    yield from (f"::: {_PROVENANCE}.{name}" for name in names)


def _title(target: str) -> str:
    """Return the section of a definition: its public module, or the clients."""
    module = target.split(".")[1]
    return _CLIENTS if module.startswith("_") else module.capitalize()
