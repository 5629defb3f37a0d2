"""The kit finds what runners do wrong, and leaves no process behind."""

import fnmatch
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest
from safelight.testing import Vector, load_vectors

from clients.conformance.kit import VECTORS, run_vectors
from clients.conformance.runners import BuildError, Runner, find_runners

CALL = """
import json, sys, time
from safelight import Client
for line in sys.stdin:
    job = json.loads(line)
    with Client(job["target"]) as client:
        client.text_to_image(job["request"]["inputs"], timeout=5, linger=0)
    print('{"completed": {}}\\n', flush=True)
"""
SAY_NOTHING = "import sys\nfor line in sys.stdin:\n    print(flush=True)\n"
HANG = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n"
CRASH = "raise SystemExit('out of luck')\n"
HELD: Vector = {"name": "held", "calls": [{"script": []}], "outcome": []}


def runner(folder: Path, program: str = "", **fields: object) -> Runner:
    entry = {"name": "toy", "command": [sys.executable, "-c", program], **fields}
    (folder / "examples/toy").mkdir(parents=True, exist_ok=True)
    (folder / "examples/toy/runner.json").write_text(json.dumps(entry))
    [found] = find_runners(folder)
    return found


def test_call_that_does_not_come_is_a_problem(tmp_path: Path) -> None:
    [result] = run_vectors(runner(tmp_path, SAY_NOTHING), [HELD], calls_s=0)
    assert result.problems == ["call 1, Generate, has not come"]


def test_unexpected_call_is_a_problem(tmp_path: Path) -> None:
    none: Vector = {"name": "none", "calls": [], "outcome": []}
    [result] = run_vectors(runner(tmp_path, CALL), [none], calls_s=0)
    assert "call 1, Generate, was not expected" in result.problems


def test_runner_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    vectors: list[Vector] = [HELD, {"name": "held as well", "calls": HELD["calls"], "outcome": []}]
    results = run_vectors(runner(tmp_path, HANG), vectors, job_s=0.5, calls_s=0)
    pids = []
    for result in results:
        assert any("longer than 0.5 s" in problem for problem in result.problems)
        [pid] = re.findall(r"line 1 cannot be read: (\d+)", "\n".join(result.problems))
        pids.append(int(pid))
    assert len(set(pids)) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_kit_that_is_stopped_ends_its_runner(tmp_path: Path) -> None:
    stop = threading.Event()
    vectors: list[Vector] = [{"name": f"held {n}", "calls": [], "outcome": []} for n in range(9)]
    stop.set()
    assert run_vectors(runner(tmp_path, HANG), vectors, stop=stop) == []


def test_runner_that_crashes_is_a_problem_with_its_last_words(tmp_path: Path) -> None:
    [result] = run_vectors(runner(tmp_path, CRASH), [HELD], calls_s=0)
    assert "the runner ended: out of luck" in result.problems


def test_toolchain_that_is_missing_is_named(tmp_path: Path) -> None:
    assert runner(tmp_path, needs=[["true"], ["false"]]).find_missing() == "false"
    assert runner(tmp_path, needs=[["no-such-program", "x"]]).find_missing() == "no-such-program x"
    assert runner(tmp_path, needs=[["true"]]).find_missing() is None


def test_build_that_fails_shows_its_output(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no such module"):
        runner(tmp_path, build=["sh", "-c", "echo no such module >&2; exit 1"]).build()


def test_unknown_key_of_a_runner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown keys: builds"):
        runner(tmp_path, builds=[])


def test_unknown_proxy_of_a_runner_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="goes through 'carrier pigeons'"):
        runner(tmp_path, through="carrier pigeons")


def test_runner_plays_the_vectors_of_its_patterns(tmp_path: Path) -> None:
    vectors: list[Vector] = [HELD, {"name": "other", "calls": [], "outcome": []}]
    results = run_vectors(runner(tmp_path, SAY_NOTHING, vectors=["oth*"]), vectors)
    assert [(each.name, each.problems) for each in results] == [("other", [])]


def test_patterns_of_all_runners_fit_vectors() -> None:
    names = [vector["name"] for vector in load_vectors(VECTORS)]
    for each in find_runners():
        assert all(fnmatch.filter(names, pattern) for pattern in each.vectors)


def test_known_failures_of_all_runners_are_vectors_and_have_reasons() -> None:
    names = {vector["name"] for vector in load_vectors(VECTORS)}
    runners = find_runners()
    assert {"python", "python-async"} <= {each.name for each in runners}
    for each in runners:
        assert each.known_failures.keys() <= names
        assert all(each.known_failures.values())
