import threading
import time

import pytest

from support.thread_clock import set_clock


def test_other_threads_keep_the_real_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.monotonic()
    seen: list[float] = []
    set_clock(monkeypatch, lambda: before + 86_400)
    thread = threading.Thread(target=lambda: seen.append(time.monotonic()))
    thread.start()
    thread.join()
    assert time.monotonic() == before + 86_400
    assert before <= seen[0] < before + 3600
