"""Commands and Python examples of the documentation's pages."""

import re
import shlex
import subprocess
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELLS = {"sh", "bash", "shell"}
_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>`{3,}) *(?P<language>[\w+-]*)[^\n`]*\n"
    r"(?P<body>.*?)^(?P=indent)(?P=fence)[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)")
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_PROMPT = "$ "


@dataclass(frozen=True, slots=True)
class Example:
    """A command or a Python block, as it stands on line `line` of a page."""

    page: str
    line: int
    text: str

    @property
    def where(self) -> str:
        """Its page and line."""
        return f"{self.page}:{self.line}"

    @property
    def command(self) -> str:
        """A command without its comment and its line breaks."""
        return " ".join(re.sub(r"\\\n", " ", re.sub(r"\s+# .*$", "", self.text)).split())


def find_pages() -> list[str]:
    """Return the paths of all pages for users and contributors, below the root."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    output = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [
        path
        for path in sorted(output.splitlines())
        if not path.startswith(("tests/", ".github/")) and (ROOT / path).is_file()
    ]


def read_blocks(page: str, text: str) -> Iterator[tuple[str, Example]]:
    """Yield the language and the body of each fenced block."""
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("body")) + 1
        yield match["language"], Example(page, line, textwrap.dedent(match["body"]))


def split_commands(block: Example, is_session: bool) -> Iterator[Example]:
    """Yield the commands of a block; in a session they follow a prompt, among their output."""
    pending, start = "", 0
    for line, text in enumerate(block.text.splitlines(), block.line):
        if not pending:
            start = line
            if is_session and not text.startswith(_PROMPT):
                continue
        pending += text.removeprefix(_PROMPT) if is_session and not pending else text
        if not _is_complete(pending):
            pending += "\n"
            continue
        if pending.strip() and not pending.lstrip().startswith("#"):
            yield Example(block.page, start, pending)
        pending = ""
    assert not pending, f"{block.page}:{start} does not end"


def _is_complete(text: str) -> bool:
    heredoc = _HEREDOC.search(text)
    if heredoc:
        return heredoc[1] in text.splitlines()[1:]
    if text.endswith("\\"):
        return False
    try:
        shlex.split(text, comments=True)
    except ValueError:  # an open quotation
        return False
    return True


def find_commands() -> list[Example]:
    """Return the commands of all pages, in their order."""
    return [
        command
        for page in find_pages()
        for language, block in read_blocks(page, (ROOT / page).read_text())
        if language in SHELLS or language == "console"
        for command in split_commands(block, language == "console")
    ]


def find_scripts() -> list[Example]:
    """Return the Python of each page that has some, its blocks one after the other."""
    scripts = []
    for page in find_pages():
        blocks = read_blocks(page, (ROOT / page).read_text())
        python = [block for language, block in blocks if language in {"python", "py"}]
        if python:
            text = "\n".join(block.text for block in python)
            scripts.append(Example(page, python[0].line, text))
    return scripts


def find_spans() -> list[Example]:
    """Return the inline code of all pages."""
    return [
        Example(page, text.count("\n", 0, match.start()) + 1, match[1])
        for page in find_pages()
        for text in [_FENCE.sub("", (ROOT / page).read_text())]
        for match in _SPAN.finditer(text)
    ]
