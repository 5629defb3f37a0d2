"""The logs of a run: their bounds, and the outputs that they hold."""

from pathlib import Path
from typing import Any

import pytest
import torch

from safelight_service.engine.operations import Forward
from safelight_service.engine.recovery.log_writer import LogWriter
from safelight_service.engine.recovery.records import decode
from safelight_service.engine.recovery.run_logs import RunLog
from safelight_service.engine.recovery.stores import FolderStore

NAMES = ("a", "b")
CPU = torch.device("cpu")
OUTPUT = torch.rand(1, 25)
FORWARD = Forward({"sample": OUTPUT}, 1, None)
LARGE = 1 << 20


class Logs:
    """Logs of runs of two images in one folder; each flush ends the thread that writes."""

    def __init__(self, folder: Path) -> None:
        self.store = FolderStore(folder, 60, LARGE)
        self.writer = LogWriter(LARGE)

    def open(self, max_bytes: int = LARGE) -> RunLog:
        self.writer = LogWriter(LARGE)
        return RunLog(NAMES, self.store.load(NAMES), self.store, self.writer, max_bytes)

    def flush(self) -> list[list[int]]:
        """Return the steps of the records of each image."""
        self.writer.close()
        found = zip(NAMES, self.store.load(NAMES), strict=True)
        return [[record.step for record, _ in decode(name, log)] for name, log in found]


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    logs = Logs(tmp_path)
    logs.writer.close()
    return logs


def write(log: RunLog, index: int, *steps: int, output: Any = OUTPUT) -> None:
    for step in steps:
        log.images[index].write(FORWARD, step, output, CPU)


def test_a_run_shares_its_bytes_among_its_images(logs: Logs) -> None:
    log = logs.open(max_bytes=3 * OUTPUT.nbytes)
    write(log, 0, 0, 1)
    write(log, 1, 0, 1)
    write(log, 0, 2)
    assert logs.flush() == [[0, 1], [0]]


def test_a_log_has_no_gap(logs: Logs) -> None:
    log = logs.open(max_bytes=2 * OUTPUT.nbytes)
    write(log, 0, 0)
    write(log, 0, 1, output=torch.rand(1, 50))
    write(log, 0, 2)
    assert logs.flush() == [[0], []]


def test_an_output_that_no_record_can_hold_ends_the_log(logs: Logs) -> None:
    log = logs.open()
    write(log, 0, 0)
    write(log, 0, 1, output={"sample": OUTPUT})
    write(log, 0, 2)
    assert logs.flush() == [[0], []]


def test_the_log_keeps_an_output_that_is_written_into_later(logs: Logs) -> None:
    log = logs.open()
    output = OUTPUT.clone()
    write(log, 0, 0, output=output)
    output.zero_()
    logs.flush()
    assert torch.equal(logs.open().images[0].replay(FORWARD, CPU), OUTPUT)
    logs.flush()


@pytest.mark.parametrize(
    ("steps", "count"),
    [
        ((), 0),
        ((0, 1, 2), 3),
        ((0, 0, 1, 1), 2),  # two forwards a step
        ((0, 0, 1), 1),
        ((0, 0, 1, 1, 2), 2),
        ((0, 1, 1, 2), 3),  # one step of two forwards
    ],
)
def test_steps_are_counted_by_their_forwards(
    logs: Logs, steps: tuple[int, ...], count: int
) -> None:
    write(logs.open(), 0, *steps)
    logs.flush()
    assert logs.open().step_count == count
    logs.flush()


def test_a_run_that_is_over_leaves_no_log_and_one_that_is_not_does(logs: Logs) -> None:
    log = logs.open()
    write(log, 0, 0, 1)
    log.end(is_over=False)
    write(log, 0, 2)
    assert logs.flush() == [[0, 1], []]
    logs.open().end(is_over=True)
    assert logs.flush() == [[], []]


def test_the_log_of_the_next_run_contains_that_of_the_last(logs: Logs) -> None:
    write(logs.open(), 0, 0, 1)
    logs.flush()
    log = logs.open()
    assert log.images[0].replay(FORWARD, CPU) is not None
    write(log, 0, 7)  # the pipeline went another way
    assert logs.flush() == [[0, 7], []]
