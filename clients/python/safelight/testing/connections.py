"""The proxy in front of the fake service, which breaks connections as networks and proxies do."""

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from typing import IO

_DATA, _HEADERS, _RST_STREAM, _GOAWAY = 0x0, 0x1, 0x3, 0x7
_END_STREAM_AND_HEADERS = 0x5
_NO_ERROR, _INTERNAL_ERROR, _ENHANCE_YOUR_CALM = 0x0, 0x2, 0xB
_PREFACE_BYTES, _HEADER_BYTES, _LAST_STREAM = 24, 9, 2**31 - 1
_PATIENCE_S = 5.0

ACTIONS = ("fin", "half", "reset", "rst_stream", "goaway", "drain", "http_403", "http_503")
"""Actions of `ConnectionProxy.act`.

In their order: close (FIN), close within a message, reset (TCP RST), reset the call's stream as
Envoy does, refuse all streams with GOAWAY and close, send a GOAWAY that lets streams end, answer a
call that has no answer yet with an HTTP status, as a proxy does.
"""


class ConnectionProxy:
    """Passes HTTP/2 both ways, frame by frame. Use it in a `with` block."""

    def __init__(self, port: int, upstream_port: int) -> None:
        """Listen on 127.0.0.1.

        Args:
            port: Own port; 0 for a free one.
            upstream_port: Port of the service on 127.0.0.1.
        """
        self._upstream = ("127.0.0.1", upstream_port)
        self._listener = socket.create_server(("127.0.0.1", port))
        self._connections: dict[int, _Connection] = {}
        self._changed = threading.Condition()
        self.port: int = self._listener.getsockname()[1]

    def act(self, peer: str, action: str, message_count: int) -> None:
        """Break a connection, after the client has been sent the call's messages.

        Args:
            peer: The connection, as `grpc.ServicerContext.peer` names it.
            action: One of `ACTIONS`.
            message_count: Number of messages that the call has sent.
        """
        with self._changed:
            connection = self._connections[int(peer.rpartition(":")[2])]
        connection.act(action, message_count)

    def __enter__(self) -> "ConnectionProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections.values():
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream)
            for side in (client, server):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(client, server)
            with self._changed:
                self._connections[server.getsockname()[1]] = connection
            threading.Thread(target=connection.pass_requests, daemon=True).start()
            threading.Thread(target=connection.pass_responses, daemon=True).start()


class _Connection:
    """One connection: the client's socket and the service's."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client, self._server = client, server
        self._sent = threading.Condition()
        self._received = threading.Lock()
        self._message_counts: Counter[int] = Counter()
        self._unread: dict[int, bytearray] = {}
        self._latest_stream = 0
        self._latest_call = 0
        self._is_open = False
        """Whether the client has the service's settings, which have to come first."""

    def pass_requests(self) -> None:
        with contextlib.suppress(OSError), self._client.makefile("rb") as file:
            self._server.sendall(file.read(_PREFACE_BYTES))
            for header, payload in _frames(file):
                with self._received:
                    if header[3] == _HEADERS:
                        self._latest_call = _stream_of(header)
                    self._server.sendall(header + payload)
        _end(self._server)

    def pass_responses(self) -> None:
        with contextlib.suppress(OSError), self._server.makefile("rb") as file:
            for header, payload in _frames(file):
                with self._sent:
                    self._client.sendall(header + payload)
                    self._is_open = True
                    self._count_messages(header, payload)
                    self._sent.notify_all()
        _end(self._client)

    def act(self, action: str, message_count: int) -> None:
        with self._sent, contextlib.suppress(OSError):
            self._sent.wait_for(
                lambda: (
                    self._is_open and self._message_counts[self._latest_stream] >= message_count
                ),
                _PATIENCE_S,
            )
            if action == "rst_stream":
                self._client.sendall(_reset(self._latest_stream))
                with self._received:
                    self._server.sendall(_reset(self._latest_stream))
            elif action.startswith("http_"):
                with self._received:
                    status = b"\x08\x03" + action[-3:].encode()  # HPACK: a literal of `:status`
                    flags = _END_STREAM_AND_HEADERS
                    self._client.sendall(_frame(_HEADERS, self._latest_call, status, flags))
                    self._server.sendall(_reset(self._latest_call))
            elif action == "half":
                begun = struct.pack(">BI", 0, 100) + bytes(50)  # of 100 bytes
                self._client.sendall(_frame(_DATA, self._latest_stream, begun))
                self.close()
            elif action == "drain":
                self._client.sendall(_goaway(_LAST_STREAM, _NO_ERROR, b""))
            elif action == "goaway":
                self._client.sendall(_goaway(0, _ENHANCE_YOUR_CALM, b"too_many_pings"))
                self.close()
            elif action == "reset":
                linger_0 = struct.pack("ii", 1, 0)  # close() then sends RST
                self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0)
                self._client.shutdown(socket.SHUT_RD)  # ends the other thread's recv()
                self.close()
            else:
                self.close()

    def close(self) -> None:
        for side in (self._server, self._client):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()

    def _count_messages(self, header: bytes, payload: bytes) -> None:
        """Count the messages of gRPC in the frames of each stream."""
        if header[3] != _DATA:
            return
        self._latest_stream = _stream_of(header)
        unread = self._unread.setdefault(self._latest_stream, bytearray())
        unread += payload
        while len(unread) >= 5 and len(unread) >= (end := 5 + int.from_bytes(unread[1:5], "big")):
            del unread[:end]
            self._message_counts[self._latest_stream] += 1


def _end(side: socket.socket) -> None:
    """Send no more, since the other side has closed its connection or reset it."""
    with contextlib.suppress(OSError):
        side.shutdown(socket.SHUT_WR)


def _frames(file: IO[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield header and payload of each frame that a side sends."""
    while len(header := file.read(_HEADER_BYTES)) == _HEADER_BYTES:
        yield header, file.read(int.from_bytes(header[:3], "big"))


def _stream_of(header: bytes) -> int:
    return int.from_bytes(header[5:], "big") & _LAST_STREAM


def _frame(kind: int, stream: int, payload: bytes, flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _reset(stream: int) -> bytes:
    return _frame(_RST_STREAM, stream, struct.pack(">I", _INTERNAL_ERROR))


def _goaway(last_stream: int, code: int, text: bytes) -> bytes:
    return _frame(_GOAWAY, 0, struct.pack(">II", last_stream, code) + text)
