"""The bounds of the thread that writes logs."""

import threading

from safelight_service.engine.recovery.log_writer import MAX_PENDING_BYTES, LogWriter


def test_stored_bytes_are_bounded_until_they_are_freed() -> None:
    writer = LogWriter(10)
    assert writer.reserve(6)
    assert not writer.reserve(5)
    writer.free(6)
    writer.submit(6, lambda: None)
    assert writer.reserve(10)
    writer.close()


def test_a_thread_that_cannot_keep_up_refuses_records() -> None:
    writer = LogWriter(10 * MAX_PENDING_BYTES)
    gate = threading.Event()
    assert writer.reserve(MAX_PENDING_BYTES)

    def hold() -> None:
        gate.wait(10)

    writer.submit(MAX_PENDING_BYTES, hold)
    assert not writer.reserve(1)
    gate.set()
    writer.close()
    assert writer.reserve(1)


def test_a_failure_pauses_logging_and_the_thread_goes_on() -> None:
    writer = LogWriter(10)
    done = threading.Event()

    def fail() -> None:
        raise OSError

    writer.submit(0, fail)
    writer.submit(0, done.set)
    writer.close()
    assert done.is_set()
    assert writer.is_paused
