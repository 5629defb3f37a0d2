"""The package: light to import, typed and complete."""

import sys
from importlib.resources import files
from pathlib import Path
from subprocess import run

import safelight

CLIENT = Path(safelight.__file__).parents[1]


def test_import_loads_neither_torch_nor_the_command_line() -> None:
    code = "import safelight, sys; print(*sys.modules)"
    modules = run(
        [sys.executable, "-c", code], cwd=CLIENT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "typer", "rich", "PIL"}.intersection(modules)


def test_package_is_marked_as_typed() -> None:
    assert files("safelight").joinpath("py.typed").is_file()


def test_every_public_name_exists_and_is_listed_in_order() -> None:
    assert all(hasattr(safelight, name) for name in safelight.__all__)
