"""The package: light imports, and types."""

import ast
import sys
from importlib.resources import files
from pathlib import Path
from subprocess import run

import pytest

import safelight_settings

PACKAGE = Path(safelight_settings.__file__).parent
MODULES = sorted(PACKAGE.glob("*.py"))
ALLOWED = {"pydantic", "pydantic_settings", "safelight_settings"}


def test_it_imports_pydantic_and_the_standard_library_only() -> None:
    roots = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                roots |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                roots.add((node.module or "").split(".")[0])
    assert roots - sys.stdlib_module_names == ALLOWED


def test_it_brings_neither_grpc_nor_the_client() -> None:
    code = "import safelight_settings, sys; print(*sys.modules)"
    modules = run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"grpc", "safelight", "typer", "rich", "torch", "PIL"} & {*modules}


def test_package_is_marked_as_typed() -> None:
    assert files("safelight_settings").joinpath("py.typed").is_file()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_every_module_says_in_one_line_what_it_is(module: Path) -> None:
    docstring = ast.get_docstring(ast.parse(module.read_text()))
    assert docstring
    assert docstring.splitlines()[0].endswith(".")
