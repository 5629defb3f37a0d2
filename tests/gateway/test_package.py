"""The package, which depends on the contract alone."""

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path
from subprocess import run

import pytest

import safelight_gateway
from support.distributions import read_metadata

PACKAGE = Path(safelight_gateway.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
PARTS = {"protobuf-py-pure": "protobuf-py"}
"""Distributions that belong to another one, which is the one to declare."""


def imported_names(module: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_it_needs_neither_the_service_nor_torch() -> None:
    code = "import safelight_gateway.cli, sys; print(*sys.modules)"
    modules = run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "diffusers", "safelight_service", "PIL", "connectrpc"} & {
        *modules
    }


def test_it_imports_what_it_declares_and_nothing_else() -> None:
    roots = {name.split(".")[0] for module in MODULES for name in imported_names(module)}
    core = read_metadata("clients/gateway").core
    declared = {*core.dependencies_complex.values()}.union(
        *(extra.values() for extra in core.optional_dependencies_complex.values())
    )
    names = {requirement.name for requirement in declared}
    distributions = packages_distributions()
    for root in (
        roots - sys.stdlib_module_names - {"safelight", "safelight_gateway", "safelight_settings"}
    ):
        assert names & {PARTS.get(name, name) for name in distributions[root]}, root


def test_package_is_marked_as_typed() -> None:
    assert files("safelight_gateway").joinpath("py.typed").is_file()


@pytest.mark.parametrize(
    "module", MODULES, ids=lambda module: module.relative_to(PACKAGE).as_posix()
)
def test_every_module_says_in_one_line_what_it_is(module: Path) -> None:
    docstring = ast.get_docstring(ast.parse(module.read_text()))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":"))
