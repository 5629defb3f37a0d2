"""Rehearsals: benchmarks of the service, for a few seconds each."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("goodput", ["load 0.9, deadlines", "load 1.4"]),
        ("fairness", ["Jain's index", "p99"]),
        ("reuse", ["8 callers", "euler_a"]),
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
