"""Distributions: all four agree on version and licence, and ship their types."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("service", "settings", "clients/python", "clients/gateway")


def read_project(folder: str) -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())[
        "project"
    ]
    return project


def test_all_have_one_version_and_require_each_other_in_it() -> None:
    projects = [read_project(folder) for folder in FOLDERS]
    [version] = {project["version"] for project in projects}
    names = {project["name"] for project in projects}
    pins = [
        re.match(r"[\w-]+", requirement)
        for project in projects
        for requirement in project["dependencies"]
        if requirement.endswith(f"=={version}")
    ]
    required = {
        name
        for project in projects
        for requirement in project["dependencies"]
        for name in names
        if re.match(rf"{name}(\[\w+\])?(?![\w-])", requirement)
    }
    assert required == {pin[0] for pin in pins if pin}


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_ships_the_licence_and_its_types(folder: str) -> None:
    project = read_project(folder)
    assert project["license-files"] == ["LICENSE"]
    assert (ROOT / folder / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "Typing :: Typed" in project["classifiers"]
    package = project["name"].replace("-", "_")
    assert (ROOT / folder / package / "py.typed").is_file()
