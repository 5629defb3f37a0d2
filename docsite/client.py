"""Client: the reference of the Python client, whose docstrings mkdocstrings renders."""

from collections.abc import Iterator

import griffe

_PACKAGE = "safelight"
_SECTIONS = {
    "_client": "Blocking client",
    "_async_client": "Client for asyncio",
    "_connection": "Encryption",
    "options": "Options of calls",
    "parameters": "Parameters",
    "events": "Events",
    "assembler": "Streams of other stubs",
    "models": "Models",
    "errors": "Errors",
}
"""The title of each module whose names the package exports, in the order of the page."""

_HIDDEN = "__version__"
_INTRODUCTION = """\
# Python client

The names of the package `safelight`. [Quickstart](../quickstart.md) shows them in use."""


def render() -> str:
    """Return the page of all names that the package exports."""
    return "\n\n".join(_blocks()) + "\n"


def exported_names() -> list[str]:
    """Return the names that have an entry in the page."""
    exports = griffe.load(_PACKAGE).exports or ()
    return sorted({str(name) for name in exports} - {_HIDDEN})


def _blocks() -> Iterator[str]:
    package = griffe.load(_PACKAGE)
    modules: dict[str, list[str]] = {module: [] for module in _SECTIONS}
    for name in exported_names():
        target = package[name]
        modules[target.target_path.split(".")[1]].append(name)
    yield _INTRODUCTION
    for module, names in modules.items():
        yield f"## {_SECTIONS[module]}"
        yield from (f"::: {_PACKAGE}.{name}" for name in names)
