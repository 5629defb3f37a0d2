"""Whether leaving has stopped a generation of the real service."""

import time
from itertools import islice

from safelight import CallCancelledError, Client, Progress


def has_stopped(target: str, generation_id: str) -> bool:
    """Watch a generation, a step at a time, until it has been cancelled or 10 s have passed.

    A watch begins with the latest step of the past. The end of a watch cancels nothing as long as
    the call that is meant to have left is open.
    """
    gives_up_at = time.monotonic() + 10
    with Client(target) as client:
        while time.monotonic() < gives_up_at:
            try:
                with client.watch(generation_id) as watch:
                    steps = (event for event in watch if isinstance(event, Progress))
                    assert len([*islice(steps, 2)]) == 2
            except CallCancelledError:
                return True
    return False
