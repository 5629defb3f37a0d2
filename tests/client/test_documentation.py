"""The examples of the docstrings, run against the real service."""

import asyncio
import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import safelight
from safelight import AsyncClient, Client

from support.running_service import RunningService

PACKAGE = Path(safelight.__file__).parent
DOCUMENTED_TARGET = "localhost:50051"


def find_doctests() -> Iterator[doctest.DocTest]:
    """Yield the examples of each docstring of the library."""
    for path in sorted(
        [path for folder in (".", "_client", "testing") for path in PACKAGE.glob(f"{folder}/*.py")]
    ):
        if path.stem != "__main__":
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            name = ".".join(parts).removesuffix(".__init__")
            found = doctest.DocTestFinder().find(importlib.import_module(name))
            yield from (test for test in found if test.examples)


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
