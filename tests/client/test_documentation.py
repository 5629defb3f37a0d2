"""The examples: those of the docstrings and of the README, run against the real service."""

import asyncio
import doctest
import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safelight
from safelight import AsyncClient, Client
from safelight.cli import main

from support.running_service import RunningService

PACKAGE = Path(safelight.__file__).parent
README = (PACKAGE.parent / "README.md").read_text()
DOCUMENTED_TARGET = "localhost:50051"


def find_doctests() -> Iterator[doctest.DocTest]:
    """Yield the examples of each docstring of the library."""
    for path in sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("_client/*.py")]):
        if path.stem != "__main__":
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            found = doctest.DocTestFinder().find(importlib.import_module(name))
            yield from (test for test in found if test.examples)


def fenced(language: str) -> list[str]:
    """Return the blocks of this language in the README."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps the files that examples write."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_empty_folder")
@pytest.mark.parametrize("test", [*find_doctests()], ids=lambda test: test.name)
def test_docstring_says_what_happens(test: doctest.DocTest, service: RunningService) -> None:
    for example in test.examples:
        example.source = example.source.replace(DOCUMENTED_TARGET, service.target)
    with Client(service.target) as client:
        test.globs = {"AsyncClient": AsyncClient, "asyncio": asyncio, "client": client}
        report: list[str] = []
        doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.usefixtures("in_empty_folder")
def test_python_of_the_readme_runs(service: RunningService) -> None:
    names: dict[str, Any] = {}
    for block in fenced("python"):
        exec(block.replace(DOCUMENTED_TARGET, service.target), names)
    names["client"].close()
    assert {path.name for path in Path().iterdir()} == {"circle.png", "star-0.png", "star-1.png"}


@pytest.mark.usefixtures("in_empty_folder")
def test_commands_of_the_readme_run(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFELIGHT_TARGET", service.target)
    for command in "".join(fenced("console")).splitlines():
        arguments = shlex.split(command.removeprefix("$ "))
        if arguments[0] == "safelight":
            monkeypatch.setattr(sys, "argv", arguments)
            with pytest.raises(SystemExit, match=r"^0$"):
                main()
    written = {path.name for path in Path().iterdir()}
    assert {"circle.png", "heart-0.webp", "heart-1.webp"} < written
