"""Faults at random."""

import threading
import time

import pytest

from benchmarks.faults import fault_loop
from benchmarks.faults.fault_loop import Fault, FaultLoop


def test_a_fault_that_fails_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the rest of a run would have no faults, and pass."""
    monkeypatch.setattr(fault_loop, "PAUSE_S", (0, 0))
    has_begun = threading.Event()

    def fail() -> None:
        has_begun.set()
        raise RuntimeError("broken")

    began_at = time.monotonic()
    faults = FaultLoop(0, [Fault("fail", fail, fail, 0, 0)])
    with pytest.raises(RuntimeError, match="broken"), faults.running():
        assert has_begun.wait(20)
    assert faults.counts == {"fail": 1}
    assert faults.has_met(began_at, time.monotonic())
    assert not faults.has_met(began_at - 100, began_at - 50)
