"""Stages that fail in all ways. As a module, runs a plan: FOLDER PLAN."""

import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.gpu.driver import Stage, run_stages
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

PIPE_VARIABLE = "FAULTY_STAGES_PIPE"
"""Variable with the file descriptor to which the hanging stage writes a byte."""


def fail_once(session: Session, recorder: Recorder) -> None:
    with recorder.figure("first", width=1) as figure:
        figure["half"] = 0.5
        raise ValueError("of no use")
    with recorder.figure("second", width=2) as figure:
        figure["whole"] = 1


def fail(session: Session, recorder: Recorder) -> None:
    raise RuntimeError("nothing to measure")


def die(session: Session, recorder: Recorder) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(session: Session, recorder: Recorder) -> None:
    recorder.write("measured", value=1)
    notify_test()
    signal.pause()


def leave_a_process_behind(session: Session, recorder: Recorder) -> None:
    if os.fork() == 0:
        signal.pause()


def talk(session: Session, recorder: Recorder) -> None:
    print("of interest to nobody")
    recorder.write("measured", value=2)


def notify_test() -> None:
    if PIPE_VARIABLE in os.environ:
        os.write(int(os.environ[PIPE_VARIABLE]), b".")


def stage(name: str, expected_s: float = 0.0, limit_s: float = 60.0) -> Stage:
    return Stage(name, f"{__name__}:{name}", expected_s, limit_s)


PLANS = {
    "faulty": [
        stage("fail_once"),
        stage("fail"),
        stage("die"),
        stage("hang", limit_s=0.2),
        stage("leave_a_process_behind"),
        stage("talk"),
    ],
    "hanging": [stage("hang")],
    "late": [stage("fail", expected_s=1e6), stage("talk")],
}

if __name__ == "__main__":
    # Stages are looked up by module name, under which this process must import the module first.
    from tests.benchmarks import faulty_stages

    _, folder, plan = sys.argv
    session = Session(Path(folder), is_rehearsal=True, began_at=time.monotonic())
    run_stages(faulty_stages.PLANS[plan], session, deadline_s=1000.0)
