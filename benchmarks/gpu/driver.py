"""Driver: stages one after another, each in a forked process with its own time limit.

A stage that raises, hangs or dies loses only its own figures, and CUDA starts afresh in each.
Forking is cheap, because the parent has already imported the libraries, which takes seconds.
The parent must never use CUDA, which does not survive a fork.
"""

import os
import pkgutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.gpu.recorder import Recorder, describe_error
from benchmarks.gpu.session import Session

Measure = Callable[[Session, Recorder], None]
"""Function that measures, given a session and a recorder."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run, in its own process."""

    name: str
    measure: str
    """Name of a `Measure`, MODULE:FUNCTION, so that listing stages imports none of them."""
    expected_s: float
    """Seconds it takes on an H100; it is skipped if fewer are left."""
    limit_s: float
    """Seconds after which it is killed."""


def load(stage: Stage) -> Measure:
    """Import a stage's function."""
    measure: Measure = pkgutil.resolve_name(stage.measure)
    return measure


def run_stages(stages: Iterable[Stage], session: Session, deadline_s: float) -> None:
    """Run the stages that fit into `deadline_s`, counted from the start of the session.

    Records the start and the ending of each stage, and those that were skipped.
    """
    terminal = os.dup(sys.stdout.fileno())  # stages redirect stdout, but figures go here, too
    for stage in stages:
        recorder = Recorder(session.results, stage.name, session.began_at, terminal)
        left_s = deadline_s - (time.monotonic() - session.began_at)
        if left_s < stage.expected_s:
            recorder.write("skipped", left_s=round(left_s, 1), expected_s=stage.expected_s)
            continue
        limit_s = min(stage.limit_s, left_s)
        recorder.write("began", limit_s=round(limit_s, 1))
        began_at = time.monotonic()
        ending = run_in_fork(_work_of(stage, session, recorder), session, limit_s)
        recorder.write("ended", ending=ending, took_s=round(time.monotonic() - began_at, 1))
    os.close(terminal)


def run_in_fork(work: Callable[[], None], session: Session, limit_s: float) -> str:
    """Run a function in a forked process, with its output in the session's log.

    Kills all processes that it started, then returns "done", "failed", "timed out" or
    "killed by SIGNAL".
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    process = os.fork()
    if process == 0:
        _become_a_stage(work, session, before)
    with suppress(OSError):  # the child does this, too; either may be first
        os.setpgid(process, process)
    try:
        has_ended = _wait(process, limit_s)
    finally:
        # Before the process is reaped: until then, no other process can get its number.
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if not has_ended:
        return "timed out"
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return "done" if os.WEXITSTATUS(status) == 0 else "failed"


def _work_of(stage: Stage, session: Session, recorder: Recorder) -> Callable[[], None]:
    def work() -> None:
        try:
            load(stage)(session, recorder)
        except BaseException as error:
            recorder.write("failed", **describe_error(error))
            raise

    return work


def _become_a_stage(
    work: Callable[[], None], session: Session, mask: Iterable[signal.Signals | int]
) -> None:
    """Run a function in the forked process, and exit."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(session.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for output in (sys.stdout, sys.stderr):
            os.dup2(log, output.fileno())
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(process: int, limit_s: float) -> bool:
    """Return whether a child process ends in time, without reaping it."""
    until = time.monotonic() + limit_s
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left_s = until - time.monotonic()
        if left_s <= 0:
            return False
        signal.sigtimedwait({signal.SIGCHLD}, left_s)
    return True
