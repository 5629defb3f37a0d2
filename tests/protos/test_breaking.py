"""scripts/check-breaking, in temporary repositories: within v1 the contract only grows."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACT = "protos/safelight/v1/text_to_image.proto"
PROMISE = "docs/contract.md"
FIELD = "  string sha256 = 6;\n"
NEW_FIELD = f"{FIELD}\n  // How it was made.\n  string recipe = 99;\n"


@dataclass(frozen=True)
class Repository:
    """Git repository with this project's contract as the first commit."""

    root: Path

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it with this project's buf, without the user's git settings."""
        inherited = {name: value for name, value in os.environ.items() if name[:4] != "GIT_"}
        names = {f"GIT_{who}_{what}": "a@b.example" for who, what in NAMES}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**inherited, **names, "PATH": path, **variables}
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )

    def git(self, *arguments: str) -> str:
        result = self.run("git", *arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def edit(self, old: str, new: str) -> None:
        """Change the contract."""
        file = self.root / CONTRACT
        assert file.read_text().count(old) == 1
        file.write_text(file.read_text().replace(old, new))

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Change it")

    def check(self, **variables: str) -> tuple[int, str]:
        """Run the script; return its exit status and its output."""
        result = self.run("scripts/check-breaking", **variables)
        return result.returncode, result.stdout + result.stderr

    def clone(self, name: str, *options: str) -> "Repository":
        """Return a clone of the repository."""
        source = f"file://{self.root}"
        self.git("clone", "--quiet", *options, source, str(self.root.parent / name))
        return Repository(self.root.parent / name)


NAMES = [(who, what) for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    root = tmp_path / "origin"
    for name in (CONTRACT, "buf.yaml", "scripts/check-breaking", PROMISE):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    repository = Repository(root)
    repository.git("init", "--quiet", "--initial-branch=main")
    repository.commit()
    return repository


def test_a_new_field_breaks_no_caller(repository: Repository) -> None:
    repository.edit(FIELD, NEW_FIELD)
    assert repository.check() == (0, "")
    repository.commit()
    assert repository.check() == (0, "")


BREAKS = {
    "a field that is gone": (FIELD, ""),
    "a field of another name": (FIELD, FIELD.replace("sha256", "digest")),
    "a field of another number": (FIELD, FIELD.replace("6", "66")),
    "a field of another type": (FIELD, FIELD.replace("string", "bytes")),
    "a package of another name": ('go_package = "github', 'go_package = "gitlab'),
}


@pytest.mark.parametrize("is_committed", [False, True])
@pytest.mark.parametrize(("old", "new"), BREAKS.values(), ids=BREAKS)
def test_what_breaks_callers_is_refused_before_the_commit_and_after_it(
    old: str, new: str, is_committed: bool, repository: Repository
) -> None:
    repository.edit(old, new)
    if is_committed:
        repository.commit()
    status, said = repository.check()
    assert status == 1
    assert CONTRACT in said
    assert "docs/contract.md says what may change" in said


def test_a_branch_is_compared_with_where_it_left_main(repository: Repository) -> None:
    branch = repository.clone("branch")
    branch.git("checkout", "--quiet", "-b", "work")
    branch.edit(FIELD, "")
    branch.commit()
    branch.commit()  # a commit that does not change the contract
    assert branch.check()[0] == 1


def test_what_main_has_added_since_is_not_missed_on_a_branch(repository: Repository) -> None:
    branch = repository.clone("branch")
    branch.commit()
    repository.edit(FIELD, NEW_FIELD)
    repository.commit()
    branch.git("fetch", "--quiet")
    assert branch.check() == (0, "")


def test_a_merge_is_compared_with_what_it_was_merged_into(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "work")
    repository.edit(FIELD, "")
    repository.commit()
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "--no-ff", "--message", "Merge it", "work")
    assert repository.check()[0] == 1


def test_a_shallow_clone_gets_the_commit_before(repository: Repository) -> None:
    repository.edit(FIELD, "")
    repository.commit()
    shallow = repository.clone("shallow", "--depth=1")
    assert shallow.check()[0] == 1


def test_a_commit_without_one_before_is_not_compared(repository: Repository) -> None:
    assert repository.check() == (0, NOTHING_BEFORE)
    repository.commit()
    shallow = repository.clone("shallow", "--depth=1")
    shallow.git("remote", "set-url", "origin", str(repository.root / "gone"))
    status, said = shallow.check()
    assert (status, said.endswith(NOTHING_BEFORE)) == (0, True)


NOTHING_BEFORE = (
    "the contract is not compared: this clone has no commit before; "
    "'git fetch --deepen=1' gets it where there is one\n"
)


def test_a_commit_from_before_the_promise_is_not_binding(repository: Repository) -> None:
    repository.git("rm", "--quiet", PROMISE)
    repository.git("commit", "--quiet", "--amend", "--no-edit")
    repository.edit(FIELD, "")
    (repository.root / PROMISE).parent.mkdir(exist_ok=True)
    (repository.root / PROMISE).touch()
    repository.commit()
    status, said = repository.check()
    assert status == 0
    assert "has no docs/contract.md, and so promised nothing" in said


def test_any_commit_can_be_named(repository: Repository) -> None:
    repository.git("tag", "v1.0")
    repository.edit(FIELD, "")
    repository.commit()
    repository.commit()
    assert repository.check() == (0, "")
    assert repository.check(BREAKING_AGAINST="v1.0")[0] == 1
    assert repository.check(BREAKING_AGAINST="v9.9")[0] == 128
