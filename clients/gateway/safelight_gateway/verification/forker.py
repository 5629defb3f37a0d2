"""The forker: a program that has loaded the libraries, and forks a process for each image.

A damaged or hostile image can at most end the process that verifies it. `verifier.py` starts the
program, sends it a connection for each image over standard input, and ends it by closing that.
"""

import json
import os
import resource
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from safelight.provenance import check_trust_anchors, verify

VERIFIED, FAILED = b"\1", b"\0"
"""First byte of an answer; then the verification as JSON, or what is wrong with the image."""

_SMALL_WEBP = bytes.fromhex("524946461a000000574542505650384c0e0000002f00000000071011fd0f4444ff03")
"""One pixel. Pillow loads the reader of WebP after all others."""
_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Task:
    """An image to verify.

    Attributes:
        image: Bytes of the image.
        trust_anchors: Certificates in PEM.
        max_s: Seconds of processor time, after which the process is killed.
        max_mib: Memory that the process may take in addition.
    """

    image: bytes
    trust_anchors: str | None
    max_s: float
    max_mib: int


def main() -> None:
    """Fork a process for each connection, until standard input is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the gateway ends this program
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leaves no zombies
    verify(_SMALL_WEBP)
    with suppress(ValueError):  # loads the reader of certificates
        check_trust_anchors("")
    with socket.socket(fileno=0) as requests:
        while True:
            message, descriptors, _, _ = socket.recv_fds(requests, 1, 1)
            if not message:
                return
            if os.fork() == 0:
                requests.close()
                _serve(Connection(descriptors[0]))
                os._exit(0)
            os.close(descriptors[0])


def _serve(connection: Connection) -> None:
    """Send the id of this process, receive a task, and send the answer."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # images must not write to the log of the gateway
    connection.send(os.getpid())
    task: Task = connection.recv()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, int(task.max_s) + 1)
    taken_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE_BYTES
    _limit(resource.RLIMIT_AS, taken_bytes + task.max_mib * 2**20)
    try:
        record = verify(task.image, trust_anchors=task.trust_anchors).as_record()
    except ValueError as error:
        connection.send_bytes(FAILED + str(error).encode("utf-8", "backslashreplace"))
    else:
        connection.send_bytes(VERIFIED + json.dumps(record).encode())


def _limit(kind: int, amount: int) -> None:
    resource.setrlimit(kind, (amount, amount))
