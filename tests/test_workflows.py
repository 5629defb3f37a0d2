"""The forge's workflows: few permissions, no host names, and only targets that exist."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.distributions import FOLDERS, ROOT, read_metadata

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
WRITERS = {"contents": {"release"}, "packages": {"images"}}
"""Jobs that may write what others can change afterwards."""

every_workflow = pytest.mark.parametrize("name", [file.name for file in FILES])


def read(name: str) -> dict[str, Any]:
    workflow: dict[str, Any] = YAML(typ="safe").load(ROOT / ".github/workflows" / name)
    return workflow


def steps_of(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


@every_workflow
def test_jobs_end_in_time_and_runs_do_not_pile_up(name: str) -> None:
    workflow = read(name)
    assert "cancel-in-progress" in workflow["concurrency"]
    assert all(0 < job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())


@every_workflow
def test_permissions_are_as_few_as_they_can_be(name: str) -> None:
    workflow = read(name)
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job_name, job in workflow["jobs"].items():
        for permission, level in job.get("permissions", {}).items():
            if level == "write" and permission in WRITERS:
                assert job_name in WRITERS[permission]


@every_workflow
def test_actions_are_pinned_to_a_major_version(name: str) -> None:
    for step in steps_of(read(name)):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", step["uses"])


@every_workflow
def test_commands_take_no_text_from_expressions(name: str) -> None:
    # A tag or a branch can be named as a command; variables pass it as text.
    for step in steps_of(read(name)):
        assert "${{" not in step.get("run", "")


@every_workflow
def test_no_host_is_named(name: str) -> None:
    text = (ROOT / ".github/workflows" / name).read_text()
    assert "://" not in text
    assert not re.search(r"\b[\w-]+\.(?:cloud|com|dev|io|net|org)\b", text)


@every_workflow
def test_targets_and_scripts_exist(name: str) -> None:
    targets = {*re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)}
    for step in steps_of(read(name)):
        assert {*re.findall(r"\bmake (\S+)", step.get("run", ""))} <= targets
        for script in re.findall(r"scripts/\S+", step.get("run", "")):
            assert (ROOT / script).is_file()


def test_distributions_claim_the_pythons_that_are_tested() -> None:
    tested = read("checks.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    for folder in FOLDERS:
        classifiers = "\n".join(read_metadata(folder).core.classifiers)
        assert re.findall(r":: (3\.\d+)$", classifiers, re.MULTILINE) == tested


def test_a_tag_is_compared_with_the_line_that_holds_the_version() -> None:
    [file] = {
        match[1]
        for step in steps_of(read("release.yml"))
        if (match := re.search(r'grep -qxF "__version__ = .*" (\S+)$', step.get("run", "")))
    }
    assert re.search(r'^__version__ = "[\d.]+"$', (ROOT / file).read_text(), re.MULTILINE)
