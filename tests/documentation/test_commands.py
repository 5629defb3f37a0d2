"""Every command and every Python example works as pasted; `make test-docs` runs this."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import PIL.Image
import pytest

from tests.documentation.exceptions import ALONE, SERVERS, STACK, Server, find_reason
from tests.documentation.pages import Example, find_commands, find_scripts
from tests.documentation.shell import Shell

pytestmark = pytest.mark.documentation
COMMANDS = [
    example
    for example in find_commands()
    if example.command not in SERVERS and find_reason(example) is None
]


@pytest.fixture(scope="module")
def reader(shell: Shell) -> Iterator[Shell]:
    """A shell alongside running servers."""
    with ExitStack() as servers:
        for server in STACK:
            servers.enter_context(shell.start(server))
        yield shell


@pytest.mark.parametrize("server", ALONE, ids=lambda server: server.command)
def test_server_starts_alone(server: Server, shell: Shell) -> None:
    with shell.start(server):
        assert "shapes" in shell.run("safelight models")


@pytest.mark.parametrize(
    "command", ["false", "safelight modles", "curl --silent http://127.0.0.1:8080/nowhere"]
)
def test_command_that_fails_is_noticed(command: str, reader: Shell) -> None:
    with pytest.raises(AssertionError, match="exits with"):
        reader.run(command)


@pytest.mark.parametrize("example", COMMANDS, ids=lambda example: example.where)
def test_command_succeeds(example: Example, reader: Shell) -> None:
    reader.run(example.text)


@pytest.mark.parametrize("script", find_scripts(), ids=lambda script: script.page)
def test_python_of_the_page_runs(script: Example, reader: Shell, tmp_path: Path) -> None:
    file = tmp_path / "example.py"
    file.write_text(script.text)
    reader.run(f"python -W error {file}")


def test_pictures_were_written_and_shown(reader: Shell) -> None:
    written = {path.name for path in reader.folder.glob("*.*p*g")}
    written |= {path.name for path in reader.folder.glob("*.webp")}
    assert {"heart.png", "circle.png", "star-0.png", "heart-0.webp", "heart-1.webp"} <= written
    shown = (reader.home / "shown").read_text().split()
    for path in [*map(Path, shown), *(reader.folder / name for name in written)]:
        PIL.Image.open(path).verify()
    assert len(shown) > 1  # previews and an image
