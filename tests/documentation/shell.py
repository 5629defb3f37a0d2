"""A fresh shell in a copy of the repository, as a reader of the documentation has it."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.documentation.exceptions import Server
from tests.documentation.pages import ROOT

_TIMEOUT_S = 90
_KEPT = ("OMP_NUM_THREADS", "PYTHONPATH")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_VIEWER = '#!/bin/sh\necho "$1" >>"$HOME/shown"\n'


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands in `folder`, a copy of the repository whose .venv is that of the tests."""

    folder: Path
    home: Path

    @classmethod
    def create(cls, folder: Path) -> "Shell":
        """Copy all files of the repository, and prepare a home."""
        shell = cls(folder / "safelight", folder / "home")
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for name in names.rstrip("\0").split("\0"):
            if (ROOT / name).is_file():
                target = shell.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)
                os.utime(target, (0, 0))  # make considers it installed
        (shell.folder / ".venv").symlink_to(sys.prefix)
        (shell.home / "bin").mkdir(parents=True)
        (shell.home / ".curlrc").write_text("fail-with-body\n")  # or its exit code says nothing
        viewer = shell.home / "bin/xdg-open"
        viewer.write_text(_VIEWER)
        viewer.chmod(0o755)
        return shell

    def run(self, text: str) -> str:
        """Run what a reader pastes, and return its output; fail by its exit code."""
        result = subprocess.run(
            ["timeout", str(_TIMEOUT_S), *self._command(text)],  # ends what it has started, too
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, f"{text}\nexits with {result.returncode}:\n{result.stdout}"
        return result.stdout

    @contextmanager
    def start(self, server: Server) -> Iterator[None]:
        """Run a server until the block ends; it is ready when the block begins."""
        with subprocess.Popen(
            self._command(server.command),
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            drain = threading.Thread(target=process.stdout.read)
            missing, seen = {*server.ready}, ""
            try:
                while missing:
                    line = process.stdout.readline()
                    assert line, f"{server.command} does not start:\n{seen}"
                    seen += line
                    missing = {text for text in missing if text not in line}
                drain.start()
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                if drain.ident is not None:
                    drain.join()  # all its processes have ended, and their ports are free

    @property
    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        path = f"{self.home / 'bin'}:{_SYSTEM_PATH}"
        return {**kept, "HOME": str(self.home), "TMPDIR": str(self.home), "PATH": path}

    def _command(self, text: str) -> list[str]:
        activated = f"source .venv/bin/activate\n{text}\n"
        return ["bash", "--noprofile", "--norc", "-c", activated]
