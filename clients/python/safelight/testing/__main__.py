"""The fake service as a command, for programs in other languages."""

import argparse
import signal
import threading
from pathlib import Path

from safelight.testing import FakeService, load_vectors


def main() -> None:
    """Serve until SIGINT or SIGTERM; print the target once it can be called."""
    parser = argparse.ArgumentParser(prog="python -m safelight.testing", description=__doc__)
    parser.add_argument("--port", type=int, default=50051, help="port on 127.0.0.1; 0: a free one")
    parser.add_argument("--token", help="token that calls have to send")
    parser.add_argument("--step-s", type=float, default=0.1, help="seconds between two steps")
    parser.add_argument("--vectors", type=Path, help="folder with vectors to replay")
    options = parser.parse_args()
    has_ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: has_ended.set())
    vectors = load_vectors(options.vectors) if options.vectors else ()
    with FakeService(
        port=options.port,
        token=options.token,
        step_s=options.step_s,
        vectors=vectors,
        repeats=True,
    ) as target:
        print(target, flush=True)
        has_ended.wait()


main()
