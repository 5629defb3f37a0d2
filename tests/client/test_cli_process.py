"""The command line in its own process: signals, terminals, missing packages."""

import json
import os
import pty
import signal
import sys
from pathlib import Path
from subprocess import PIPE, Popen, run

import pytest

from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    progress,
    whole_generation,
)

GENERATE = [sys.executable, "-W", "error", "-m", "safelight", "generate", "a red circle"]
TERMINAL = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LINES": "40", "COLUMNS": "100"}


def read_terminal(descriptor: int) -> str:
    """Return all that is written to a terminal until its last writer has gone."""
    written = b""
    try:
        while data := os.read(descriptor, 65536):
            written += data
    except OSError:  # What Linux says at the end.
        pass
    os.close(descriptor)
    return written.decode()


def run_in_terminal(scripted: ScriptedService, folder: Path, *arguments: str) -> tuple[str, str]:
    """Return standard output and what the terminal behind standard error was sent."""
    terminal, writer = pty.openpty()
    with Popen(
        [*GENERATE, "--target", scripted.target, "-o", "out.png", *arguments],
        cwd=folder,
        env={**os.environ, **TERMINAL},
        stdout=PIPE,
        stderr=writer,
        text=True,
    ) as process:
        os.close(writer)
        shown = read_terminal(terminal)
        assert process.stdout is not None
        printed = process.stdout.read()
    assert process.returncode == 0
    return printed, shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_cancels_on_the_service_and_exits_130(
    scripted: ScriptedService, tmp_path: Path, number: signal.Signals
) -> None:
    scripted.play(accepted(), progress(1), HOLD)
    with Popen(
        [*GENERATE, "--target", scripted.target, "--json"],
        cwd=tmp_path,
        stdout=PIPE,
        stderr=PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["event"] == "accepted"
        process.send_signal(number)
        assert process.wait(timeout=10) == 130
        assert process.stderr.read().endswith("cancelled\n")
    assert scripted.cancelled.wait(timeout=5)
    assert not list(tmp_path.iterdir())


def test_terminal_shows_a_bar_and_standard_output_the_file(
    scripted: ScriptedService, tmp_path: Path
) -> None:
    scripted.play(whole_generation())
    printed, shown = run_in_terminal(scripted, tmp_path)
    assert printed == "out.png\n"
    assert "done" in shown
    assert "4 steps in 2.0 s, seed 7" in shown
    assert "▀" not in shown
    assert not scripted.requests[0].preview.interval_steps


def test_terminal_shows_previews_when_asked_to(scripted: ScriptedService, tmp_path: Path) -> None:
    scripted.play(whole_generation())
    _, shown = run_in_terminal(scripted, tmp_path, "--preview")
    assert "\x1b[38;2;255;0;0;48;2;255;0;0m▀" in shown
    assert scripted.requests[0].preview.interval_steps == 1


def test_interrupt_during_the_imports_exits_130_without_a_traceback() -> None:
    code = """
import signal, sys
import safelight

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "typer":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder)
import pytest
from safelight.cli import main
main()
"""
    ended = run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_hint_is_all_there_is_without_the_extra() -> None:
    code = "import sys; sys.modules['typer'] = None; from safelight.cli import main; main()"
    process = run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.endswith("pip install 'safelight[cli]'\n")
    assert process.stderr.count("\n") == 1
