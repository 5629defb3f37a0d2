"""Boundaries: tests, benchmarks and support use only the public side of the product."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = (
    "service/safelight_service",
    "settings/safelight_settings",
    "clients/python/safelight",
    "clients/gateway/safelight_gateway",
)
USERS = ("benchmarks", "clients/conformance", "docsite", "scripts", "support", "tests", "training")


def parse(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def private_attributes() -> set[str]:
    """Return the names of private attributes of the product's classes."""
    return {
        node.attr
        for _, module in parse(*PRODUCT)
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and is_own(node.value)
        and node.attr.startswith("_")
    }


def test_no_private_attribute_of_the_product_is_read_from_outside() -> None:
    private = private_attributes()
    assert "_registry" in private
    readers = {
        (path, node.attr)
        for path, module in parse(*USERS)
        for node in ast.walk(module)
        if isinstance(node, ast.Attribute) and node.attr in private and not is_own(node.value)
    }
    assert not readers


def test_nothing_but_tests_imports_tests() -> None:
    importers = {
        path
        for path, module in parse(*PRODUCT, *(set(USERS) - {"scripts", "tests"}))
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tests"
    }
    assert not importers
    assert not [
        path.name for path in (ROOT / "scripts").iterdir() if "from tests" in path.read_text()
    ]
