"""Pages name only targets that exist, and no exception to running commands is left over."""

import re

import pytest

from tests.documentation.exceptions import NOT_RUN, SERVERS, find_reason
from tests.documentation.pages import (
    ROOT,
    Example,
    find_commands,
    find_pages,
    find_scripts,
    find_spans,
    read_blocks,
    split_commands,
)

COMMANDS = find_commands()


def read_commands(text: str) -> list[tuple[int, str]]:
    return [
        (command.line, command.command)
        for language, block in read_blocks("page.md", text)
        for command in split_commands(block, language == "console")
    ]


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("```sh\na\nb  # why\n# no command\n\n```\n", [(2, "a"), (3, "b")]),
        ("text\n\n    ```sh\n    a \\\n      b\n    c\n    ```\n", [(4, "a b"), (6, "c")]),
        ("```sh\na '{\n}'\nb <<EOF\n'\nEOF\n```\n", [(2, "a '{ }'"), (4, "b <<EOF ' EOF")]),
        ('``` console title="x"\n$ a\noutput\n$ b \\\n    c\n```\n', [(2, "a"), (4, "b c")]),
        ("````sh\na\n````\n", [(2, "a")]),
        ("`a` and ```b```\n", []),
    ],
)
def test_commands_of_a_page_are_found(text: str, commands: list[tuple[int, str]]) -> None:
    assert read_commands(text) == commands


def test_every_page_of_the_documentation_is_read() -> None:
    pages = {*find_pages()}
    docs = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert docs < pages
    assert {"README.md", "CONTRIBUTING.md", "service/README.md", "training/README.md"} < pages
    assert {"README.md", "clients/python/README.md"} <= {script.page for script in find_scripts()}


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_every_exception_excuses_a_command(pattern: str) -> None:
    assert any(re.fullmatch(pattern, example.command) for example in COMMANDS)


@pytest.mark.parametrize("example", COMMANDS, ids=lambda example: example.where)
def test_no_command_has_two_treatments(example: Example) -> None:
    assert find_reason(example) is None or example.command not in SERVERS


def test_every_server_is_documented() -> None:
    assert {example.command for example in COMMANDS} >= SERVERS


def test_targets_and_scripts_that_pages_name_exist() -> None:
    targets = {*re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)}
    for example in (*COMMANDS, *find_spans()):
        text = example.command
        for words in re.findall(r"(?:^|&& )make ((?:[a-z-]+(?: |$))+)", text):
            assert {*words.split()} <= targets, f"{example.where}: make {words}"
        for script in re.findall(r"(?:^|[ =])(scripts/[\w-]+)$", text):
            assert (ROOT / script).is_file(), f"{example.where}: {script}"
