"""TCP proxy on loopback whose connections a test can cut or stall."""

import contextlib
import socket
import threading
from typing import Self


class TcpProxy:
    """Passes bytes both ways between its own port and `target`, HOST:PORT."""

    def __init__(self, target: str, *, port: int = 0) -> None:
        host, _, upstream_port = target.rpartition(":")
        self._upstream = (host, int(upstream_port))
        self._listener = socket.create_server(("127.0.0.1", port))
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self.connection_count = 0
        self.port: int = self._listener.getsockname()[1]
        self.target = f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset all connections; new ones are still accepted."""
        with self._lock:
            broken, self._sockets = self._sockets, []
        for each in broken:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                each.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Silently stop forwarding, like a pulled cable."""
        self._flows.clear()

    def close(self) -> None:
        """Break all connections, and take no new ones."""
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._flows.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream)
            with self._lock:
                self.connection_count += 1
                self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError), source:
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
