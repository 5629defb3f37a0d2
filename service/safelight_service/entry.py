"""Entry point: obeys signals from the first moment, then imports the command and runs it.

A signal during the imports would otherwise end the process with a failure, or be ignored by the
first process of a container.
"""

import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Run the command `safelight-service`."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _exit)
    from safelight_service import cli

    cli.main()


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(0)
