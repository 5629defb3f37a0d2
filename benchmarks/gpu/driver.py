"""Driver: runs stages one after another, each in a forked process with a limit of its own.

A stage that raises, hangs or dies costs only itself, and CUDA begins anew in each. Fork is what
makes that cheap: the libraries, seconds to import, are imported once, in the process that forks.
That process must never ask CUDA for anything, since CUDA does not survive a fork.
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
"""Called with a session and a recorder."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run."""

    name: str
    measure: str
    """A `Measure` as MODULE:FUNCTION; a name, so that a list of stages imports none of them."""
    expected_s: float
    """Seconds that it takes on an H100; it does not begin with less."""
    limit_s: float
    """Seconds after which it is killed."""


def load(stage: Stage) -> Measure:
    """Import a stage's function."""
    measure: Measure = pkgutil.resolve_name(stage.measure)
    return measure


def run_stages(stages: Iterable[Stage], session: Session, deadline_s: float) -> None:
    """Run the stages that there is time for, counted from the session's beginning.

    Writes down when each began, how it ended, and which were skipped.
    """
    terminal = os.dup(sys.stdout.fileno())  # where figures go, too, while stages write to the log
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
    """Run a function in a process of its own, with its output in the session's log.

    Returns "done", "failed", "timed out" or "killed by SIGNAL". All processes that it has begun
    have been killed by then.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    process = os.fork()
    if process == 0:
        _become_a_stage(work, session, before)
    with suppress(OSError):  # the child does the same; whichever comes first
        os.setpgid(process, process)
    try:
        has_ended = _wait(process, limit_s)
    finally:
        # Before the process is reaped, as long as nobody else can have its number.
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
    """Run a function in the forked process, and end it."""
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
    """Return whether a child ends in time; it is not reaped."""
    until = time.monotonic() + limit_s
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left_s = until - time.monotonic()
        if left_s <= 0:
            return False
        signal.sigtimedwait({signal.SIGCHLD}, left_s)
    return True
