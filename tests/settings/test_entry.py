"""SIGTERM and its like end both programs with 0, from the first moment."""

import shutil
import subprocess
import sys
from functools import cache

import pytest

SIGNAL_AT_IMPORT = """
import importlib.machinery, os, signal, sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{name})

sys.meta_path.insert(0, Finder)
sys.argv = [{program!r}, "--listen", "127.0.0.1:0"]
from {program} import entry
entry.main()
"""

MOMENTS = [
    ("safelight_service", "typer"),
    ("safelight_service", "safelight_settings"),
    ("safelight_service", "torch"),
    ("safelight_gateway", "typer"),
    ("safelight_gateway", "grpc"),
]


def run(program: str, module: str, name: str, *prefix: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that receives a signal when it imports `module`."""
    source = SIGNAL_AT_IMPORT.format(program=program, module=module, name=name)
    return subprocess.run(
        [*prefix, sys.executable, "-c", source],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("program", "module"), MOMENTS)
def test_a_signal_during_the_imports_ends_the_program(program: str, module: str) -> None:
    ended = run(program, module, "SIGTERM")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP"])
@pytest.mark.parametrize("program", ["safelight_service", "safelight_gateway"])
def test_so_do_the_other_signals_that_stop_it(program: str, name: str) -> None:
    assert run(program, "typer", name).returncode == 0


@cache
def has_namespaces() -> bool:
    unshare = shutil.which("unshare")
    return (
        bool(unshare)
        and not subprocess.run(
            ["unshare", "--fork", "--pid", "true"], check=False, capture_output=True
        ).returncode
    )


@pytest.mark.skipif(not has_namespaces(), reason="this user may not make namespaces")
@pytest.mark.parametrize("program", ["safelight_service", "safelight_gateway"])
def test_the_first_process_of_a_container_obeys_too(program: str) -> None:
    """The kernel ignores signals that such a process does not handle."""
    assert run(program, "typer", "SIGTERM", "unshare", "--fork", "--pid").returncode == 0


def test_nohup_keeps_its_meaning() -> None:
    """The signal is ignored, so the program goes on: to its usage error."""
    ended = subprocess.run(
        [
            "nohup",
            sys.executable,
            "-c",
            SIGNAL_AT_IMPORT.format(
                program="safelight_gateway", module="typer", name="SIGHUP"
            ).replace("127.0.0.1:0", "nowhere"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
