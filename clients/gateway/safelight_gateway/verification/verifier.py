"""The verifier: verifies each image in a process of its own, which it kills after a time limit."""

import asyncio
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from multiprocessing.connection import Connection

from safelight.provenance import check_trust_anchors

from safelight_gateway.errors import GatewayError, invalid_field
from safelight_gateway.settings import VerificationSettings
from safelight_gateway.shares import Shares
from safelight_gateway.verification.forker import FAILED, Task

_FORKER = (sys.executable, "-P", "-c", f"from {Task.__module__} import main; main()")
_RETRY_S = 1.0
_MAX_ANSWER_BYTES = 8 * 2**20


class Verifier:
    """Verifies images. The program that forks processes for them starts with the first one."""

    def __init__(self, settings: VerificationSettings) -> None:
        """Read the trust anchors.

        Raises:
            OSError: their file cannot be read.
            ValueError: they are no certificates, or the extra `provenance` is not installed.
        """
        self._settings = settings
        self._trust_anchors: str | None = None
        if settings.trust_anchors is not None:
            self._trust_anchors = settings.trust_anchors.read_text()
            check_trust_anchors(self._trust_anchors)
        self._shares = Shares(settings.max_count)
        self._threads = ThreadPoolExecutor(settings.max_count, "verification")
        self._lock = threading.Lock()
        self._forker: subprocess.Popen[bytes] | None = None
        self._requests = socket.socket()

    async def verify(self, image: bytes, holder: str) -> bytes:
        """Return the verification of an image as JSON.

        Raises:
            GatewayError: the image cannot be verified, or the holder verifies its share already.
        """
        if not self._shares.take(holder):
            message = "too many images are verified at once; try again later"
            raise GatewayError(HTTPStatus.TOO_MANY_REQUESTS, message, "RATE_LIMITED", (), _RETRY_S)
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._run, image)
        # A caller that leaves keeps its share until the process has ended.
        work.add_done_callback(lambda _: self._shares.give_back(holder))
        return await asyncio.shield(work)

    def close(self) -> None:
        """Accept no more images, and end the forker."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._requests.close()
            if self._forker is not None:
                self._forker.wait()

    def _run(self, image: bytes) -> bytes:
        max_s, max_mib = self._settings.max_s, self._settings.max_memory_mib
        with self._connect() as connection:
            process = os.pidfd_open(connection.recv())

            def kill() -> None:
                with suppress(ProcessLookupError):  # it has ended
                    signal.pidfd_send_signal(process, signal.SIGKILL)

            end = threading.Timer(max_s, kill)
            end.start()
            try:
                connection.send(Task(image, self._trust_anchors, max_s, max_mib))
                answer = connection.recv_bytes(_MAX_ANSWER_BYTES)
            except (EOFError, OSError):  # it was killed, or has crashed
                message = f"cannot be verified within {max_s:g} s and {max_mib} MiB of memory"
                raise invalid_field("image", message) from None
            finally:
                end.cancel()
                end.join()
                kill()
                os.close(process)
        if answer[:1] == FAILED:
            raise invalid_field("image", answer[1:].decode())
        return answer[1:]

    def _connect(self) -> Connection:
        """Return a connection to a new process."""
        connection, other = multiprocessing.Pipe()
        with other, self._lock:
            if self._forker is None or self._forker.poll() is not None:
                self._start()
            socket.send_fds(self._requests, [b"\0"], [other.fileno()])
        return connection

    def _start(self) -> None:
        self._requests.close()
        self._requests, requests = socket.socketpair()
        with requests:
            self._forker = subprocess.Popen(
                _FORKER, stdin=requests.fileno(), stdout=subprocess.DEVNULL
            )
