"""Links of the pages work in the repository and in the site; one that leads nowhere is an error."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docsite.links import rewrite
from docsite.pages import MissingTargetError, Pages
from docsite.site import NavigationError, check_navigation

ROOT = Path(__file__).parents[2]


def test_only_relative_targets_outside_of_code_are_replaced() -> None:
    text = (
        "[a](x.md#y) ![b](i.png) [c](https://example.org) [d](#here) [e](/root)\n"
        "```\n[f](code.md)\n```\n[g](z.md)\n"
    )
    assert rewrite(text, str.upper) == (
        "[a](X.MD#Y) ![b](I.PNG) [c](https://example.org) [d](#here) [e](/root)\n"
        "```\n[f](code.md)\n```\n[g](Z.MD)\n"
    )


def write(root: Path, **texts: str) -> None:
    """Write files; `__` in a name separates folders, and `_` stands for the dot."""
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def copy(root: Path, references: dict[str, str] | None = None) -> Path:
    folder = root / "build"
    Pages(root, folder, references or {}).copy()
    return folder


def test_a_linked_file_becomes_a_page_that_links_on(tmp_path: Path) -> None:
    write(
        tmp_path,
        docs__index_md="[code](../src/a.py#L1) [more](../src/README.md)",
        src__a_py="print(1)\n",
        src__README_md="[folder](../src)",
    )
    folder = copy(tmp_path)
    index = (folder / "index.md").read_text()
    assert index == "[code](files/src/a.py.md#L1) [more](files/src/README.md)\n"
    assert "```python\nprint(1)\n" in (folder / "files/src/a.py.md").read_text()
    assert "[folder](../src.md)" in (folder / "files/src/README.md").read_text()
    assert "[`a.py`](src/a.py.md)" in (folder / "files/src.md").read_text()


def test_the_source_of_a_reference_leads_to_the_reference(tmp_path: Path) -> None:
    write(tmp_path, docs__index_md="[all](../src/a.py#b)", src__a_py="")
    folder = copy(tmp_path, {"src/a.py": "reference/a.md"})
    assert (folder / "index.md").read_text() == "[all](reference/a.md#b)\n"
    assert not (folder / "files").exists()


@pytest.mark.parametrize("link", ["[a](gone.md)", "![a](images/gone.png)", "[a](../gone)"])
def test_a_link_to_a_file_that_is_missing_is_an_error(link: str, tmp_path: Path) -> None:
    write(tmp_path, docs__index_md=link)
    with pytest.raises(MissingTargetError, match=r"docs/index\.md links to .*gone"):
        copy(tmp_path)


@pytest.mark.parametrize(
    ("nav", "message"),
    [
        ('["index.md"]', "omits reference/a.md"),
        ('["index.md", { "R" = ["reference/a.md"] }, { "G" = "gone.md" }]', "names gone.md"),
    ],
)
def test_navigation_and_pages_must_agree(nav: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, zensical_toml=f"[project]\nnav = {nav}\n")
    write(tmp_path, build__index_md="", build__reference__a_md="")
    with pytest.raises(NavigationError, match=message):
        check_navigation(tmp_path, tmp_path / "build")


def test_the_build_fails_on_an_anchor_that_is_missing(tmp_path: Path) -> None:
    config = (ROOT / "zensical.toml").read_text()
    config = re.sub(r"(?ms)^nav = \[.*?^\]", 'nav = ["index.md"]', config)
    write(tmp_path, zensical_toml=config, build__docs__index_md="# A\n\n[a](#a) [b](#gone)\n")
    command = ["-m", "zensical", "build", "--strict"]
    assert " ".join(command) in (ROOT / "scripts/build-docs").read_text()
    ended = subprocess.run(
        [sys.executable, *command],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    output = ended.stdout + ended.stderr
    assert output.count("anchor does not exist") >= 1
    assert "1 issue found" in output
