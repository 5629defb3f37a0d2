"""Attacks: floods of connections, streams and frames, from one address.

`python -m benchmarks.floods.attacks NAME HOST:PORT TOKEN` runs one of them until it is killed.
"""

import contextlib
import errno
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from benchmarks.floods import frames
from benchmarks.floods.frames import CONTRACT, HEALTH, PREFACE
from benchmarks.floods.streams import (
    Frames,
    dribble,
    fill,
    open_calls,
    send_calls,
    send_continuations,
    send_headers,
    send_resets,
    send_without_end,
)

SOURCE = "127.0.0.2"
"""Address of the stranger; the other callers are at 127.0.0.1."""

HELD = 2000
"""Connections that are held open at the same time."""


class Attack:
    """An attack on HOST:PORT, by a stranger or by the holder of a token."""

    def __init__(self, target: str, token: str) -> None:
        host, _, port = target.rpartition(":")
        self._address = (host, int(port))
        self.token = token

    def connect(self) -> socket.socket:
        """Open a connection, and retry while the service or the kernel refuses."""
        while True:
            connection = socket.socket()
            connection.settimeout(1)
            try:
                connection.bind((SOURCE, 0))
                connection.connect(self._address)
            except OSError as error:
                connection.close()
                if error.errno == errno.EMFILE:
                    raise
                time.sleep(0.01)
            else:
                return connection

    def send(self, count: int, make_frames: Callable[[], Frames]) -> None:
        """Send frames on some connections at a time; replace those that the service closes."""
        threads = [threading.Thread(target=self._send, args=[make_frames]) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _send(self, make_frames: Callable[[], Frames]) -> None:
        while True:
            with contextlib.suppress(OSError), self.connect() as connection:
                connection.sendall(PREFACE)
                for data in make_frames():
                    self._push(connection, data)

    def _push(self, connection: socket.socket, data: bytes) -> None:
        """Send bytes, and read and drop answers meanwhile."""
        left = memoryview(data)
        is_first = True
        while left or is_first:
            is_first = False
            readable, writable, _ = select.select(
                [connection], [connection] if left else [], [], 0.5 if left else 0
            )
            if readable and not connection.recv(1 << 16):
                raise ConnectionResetError
            if writable:
                left = left[connection.send(left[: 1 << 16]) :]

    def hold(self, beginning: bytes) -> None:
        """Hold connections that send no more than a beginning; replace closed ones at once."""
        held: dict[int, socket.socket] = {}
        poll = select.poll()
        while True:
            while len(held) < HELD:
                with contextlib.suppress(OSError):
                    connection = self.connect()
                    connection.sendall(beginning)
                    held[connection.fileno()] = connection
                    poll.register(connection, select.POLLIN)
            for descriptor, _ in poll.poll(100):
                with contextlib.suppress(OSError):
                    if held[descriptor].recv(1 << 16):
                        continue
                poll.unregister(descriptor)
                held.pop(descriptor).close()

    def knock(self) -> None:
        """Open and close connections as fast as one thread can."""
        while True:
            with contextlib.suppress(OSError), self.connect() as connection:
                connection.sendall(PREFACE)


_BLOCK = frames.encode_headers(f"{CONTRACT}Generate")
_LONG_METADATA = {f"x-filler-{number}": "x" * 1500 for number in range(10)}
_TOO_LONG_METADATA = {f"x-filler-{number}": "x" * 1500 for number in range(100)}
_RESET = {
    "Check": f"{HEALTH}Check",
    "Generate": f"{CONTRACT}Generate",
    "WatchGeneration": f"{CONTRACT}WatchGeneration",
    "ListModels": f"{CONTRACT}ListModels",
}


def _resets(attack: Attack, count: int, path: str) -> None:
    attack.send(count, partial(send_resets, path))


def _calls(attack: Attack, path: str) -> None:
    attack.send(2, partial(send_calls, path))


def _watches(attack: Attack) -> None:
    authorization = {"authorization": f"Bearer {attack.token}"}
    missing = b"\x0a\x04none"
    watch = partial(send_calls, f"{CONTRACT}WatchGeneration", authorization, missing)
    attack.send(4, watch)


ATTACKS: dict[str, Callable[[Attack], None]] = {
    **{
        f"resets of {name}, {count} connection{'s' * (count > 1)}": partial(
            _resets, count=count, path=path
        )
        for name, path in _RESET.items()
        for count in (1, 2, 6)
    },
    "silent connections": lambda attack: attack.hold(b""),
    "connections after the preface": lambda attack: attack.hold(PREFACE),
    "connections in mid-headers": lambda attack: attack.hold(
        PREFACE + frames.begin_headers(1, _BLOCK)
    ),
    "new connections": Attack.knock,
    "dribbled bodies": lambda attack: attack.send(100, partial(dribble, f"{HEALTH}Check", 20)),
    "unfinished bodies": lambda attack: attack.send(100, partial(fill, f"{HEALTH}Check", 100)),
    "health watches": lambda attack: attack.send(20, partial(open_calls, f"{HEALTH}Watch", 400)),
    "calls of Check": partial(_calls, path=f"{HEALTH}Check"),
    "calls of Generate without a token": partial(_calls, path=f"{CONTRACT}Generate"),
    "watches of one token": _watches,
    "pings": lambda attack: attack.send(2, partial(send_without_end, frames.PINGS)),
    "settings": lambda attack: attack.send(2, partial(send_without_end, frames.SETTINGS)),
    "continuations": lambda attack: attack.send(2, send_continuations),
    "long metadata": lambda attack: attack.send(
        2, partial(send_headers, frames.encode_headers(f"{CONTRACT}Generate", _LONG_METADATA))
    ),
    "too long metadata": lambda attack: attack.send(
        2, partial(send_headers, frames.encode_headers(f"{CONTRACT}Generate", _TOO_LONG_METADATA))
    ),
    "repeated headers": lambda attack: attack.send(
        2, partial(send_headers, frames.repeat_header(16_000))
    ),
}
"""Attacks by their names."""


if __name__ == "__main__":
    _name, _target, _token = sys.argv[1:]
    ATTACKS[_name](Attack(_target, _token))
