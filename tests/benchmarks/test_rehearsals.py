"""Rehearsals: benchmarks of the service, for a few seconds each."""

import re
import subprocess
import sys

import pytest

from support.redis_server import HINT, IS_INSTALLED
from support.running_envoy import Envoy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("goodput", ["load 0.9, deadlines", "load 1.4"]),
        ("fairness", ["Jain's index", "p99"]),
        ("reuse", ["8 callers", "euler_a"]),
        ("mutated_images", ["library", "gateway"]),
    ],
)
def test_a_benchmark_runs_and_compares_its_figures_with_the_goals(
    name: str, rows: list[str]
) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--rehearse"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert all(row in ended.stdout for row in rows)
    assert "goal" in ended.stdout


@pytest.mark.slow
def test_signed_images_are_valid_at_the_end_of_all_routes() -> None:
    command = [sys.executable, "-m", "benchmarks.provenance", "--rehearse"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    counts = re.findall(r"(\d+) of 9$", ended.stdout, re.MULTILINE)
    assert counts == ["9"] * len(counts)
    assert len(counts) > 15


@pytest.mark.slow
@pytest.mark.skipif(not Envoy.is_installed(), reason="Envoy is not installed")
@pytest.mark.skipif(not IS_INSTALLED, reason=HINT)
@pytest.mark.parametrize("name", ["kills", "chaos"])
def test_faults_behind_envoy_cost_no_image(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.faults.{name}", "--rehearse"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
