"""A program logs on, whatever happens to its standard error."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from safelight_settings import LogWriter, announce

CAPACITY = 8


class Pipe:
    """A pipe that is full, so that a write to it blocks."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.filling = 0
        try:
            while True:
                self.filling += os.write(self.writer, b"x" * 4096)
        except BlockingIOError:
            pass

    def read_filling(self) -> None:
        left = self.filling
        while left:
            left -= len(os.read(self.reader, left))


@pytest.fixture(params=[True, False], ids=["blocking", "non-blocking"])
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    pipe = Pipe()
    os.set_blocking(pipe.writer, request.param)
    yield pipe
    os.close(pipe.writer)


def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: Pipe) -> None:
    writer = LogWriter(pipe.writer, CAPACITY)
    reported: list[int] = []
    was_reported = threading.Event()

    def report(count: int) -> None:
        reported.append(count)
        was_reported.set()

    writer.on_dropped = report
    for number in range(3 * CAPACITY):
        assert writer.write(f"line {number}\n")
    # One line more than fit may be in the hands of the thread that cannot write it.
    assert writer.dropped_count in (2 * CAPACITY, 2 * CAPACITY - 1)
    pipe.read_filling()
    assert was_reported.wait(10)
    assert reported == [writer.dropped_count]
    writer.write("the last\n")
    writer.close()
    with open(pipe.reader) as lines:
        texts = [lines.readline() for _ in range(3 * CAPACITY - reported[0] + 1)]
    assert texts[0] == "line 0\n"
    assert texts[-1] == "the last\n"


def test_a_reader_that_has_gone_breaks_nothing() -> None:
    reader, pipe_writer = os.pipe()
    os.close(reader)
    writer = LogWriter(pipe_writer)
    writer.write("line\n")
    writer.close()
    assert writer.dropped_count == 1
    os.close(pipe_writer)


def run(program: str, redirection: str) -> "subprocess.CompletedProcess[str]":
    command = f'exec "$0" -c "$1" {redirection}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("redirection", [">&-", "> >(true)", "> /dev/full"])
def test_a_program_without_standard_output_runs_on(redirection: str) -> None:
    program = (
        "import os; from safelight_settings import announce, open_standard_streams as open_streams;"
        "open_streams(); announce('ready'); announce('ready' * 100_000);"
        "assert os.open('/', os.O_RDONLY) > 2; os._exit(7)"
    )
    assert run(program, redirection).returncode == 7


def test_a_full_pipe_that_nothing_reads_does_not_hold_up_the_program() -> None:
    program = "from safelight_settings import announce; announce('x' * 100_000); os._exit(7)"
    with subprocess.Popen(
        [sys.executable, "-c", f"import os; {program}"], stdout=subprocess.PIPE
    ) as process:
        assert process.wait(timeout=60) == 7


def test_the_ready_line_is_printed_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    announce("ready")
    assert capfd.readouterr().out == "ready\n"
