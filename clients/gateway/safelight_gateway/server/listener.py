"""The listener: accepts connections, as many as the limits allow."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus

from safelight_gateway.server.connections import Connections
from safelight_gateway.server.protocol import plain_response

_ACCEPTS_IN_A_ROW = 8
"""Connections to accept before other work of the event loop gets its turn."""
_RETRY_S = 0.2
_FULL = plain_response(HTTPStatus.TOO_MANY_REQUESTS, "too many connections; try again later")

_log = logging.getLogger("safelight_gateway")


async def bind(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Return listening sockets on all addresses of a host.

    Raises:
        OSError: the host has no address of this machine, or the port is taken.
    """
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in dict.fromkeys((info[0], info[4]) for info in infos):
        try:
            bound = socket.create_server((address[0], port), family=family, backlog=backlog)
        except OSError as error:
            failure = error  # such as ::1 on a machine without IPv6
            continue
        port = bound.getsockname()[1]  # the same on all addresses
        bound.setblocking(False)
        sockets.append(bound)
    if not sockets:
        raise failure or OSError(f"{host} has no address")
    return sockets


class Listener:
    """Accepts the connections of one socket, with the methods of `asyncio.Server` for uvicorn.

    asyncio's own accepts without limits. It knows nothing of a connection before the end of its
    TLS handshake, and logs each of thousands of failures when descriptors run out.
    """

    def __init__(
        self,
        listening: socket.socket,
        connections: Connections,
        make_protocol: Callable[[Callable[[], None]], asyncio.Protocol],
        tls: ssl.SSLContext | None,
    ) -> None:
        """Begin to accept.

        Args:
            listening: A listening socket that does not block.
            connections: Admits connections.
            make_protocol: Makes the protocol of a connection from the function to call when it
                has closed.
            tls: Encryption; None for none.
        """
        self._socket = listening
        self._connections = connections
        self._make_protocol = make_protocol
        self._tls = tls
        self._handshakes: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._accept_all())

    @property
    def sockets(self) -> Sequence[socket.socket]:
        """The socket that it listens on."""
        return (self._socket,)

    def close(self) -> None:
        """Stop accepting."""
        self._task.cancel()
        for handshake in self._handshakes:
            handshake.cancel()
        self._socket.close()

    async def wait_closed(self) -> None:
        """Wait until nothing is accepted any more."""
        await asyncio.gather(self._task, *self._handshakes, return_exceptions=True)

    async def _accept_all(self) -> None:
        loop = asyncio.get_running_loop()
        count = 0
        while True:
            count += 1
            if count % _ACCEPTS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            try:
                accepted, peer = await loop.sock_accept(self._socket)
            except ConnectionError:
                continue
            except OSError as error:  # out of descriptors or memory
                _log.warning("cannot accept connections: %s", error.strerror)
                await asyncio.sleep(_RETRY_S)
                continue
            host = str(peer[0])
            release = self._connections.admit(host)
            if release is None:
                self._refuse(accepted)
            else:
                task = asyncio.create_task(self._open(accepted, host, release))
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)

    def _refuse(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError):
            if self._tls is None:
                accepted.send(_FULL)

    async def _open(self, accepted: socket.socket, host: str, release: Callable[[], None]) -> None:
        """Make the transport of a connection, after its TLS handshake."""
        handshake_s = self._connections.settings.head_s if self._tls is not None else None
        try:
            await self._connections.wait_to_open(host)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_protocol(release),
                accepted,
                ssl=self._tls,
                ssl_handshake_timeout=handshake_s,
            )
        except BaseException as error:
            release()
            accepted.close()
            if not isinstance(error, OSError):  # the client broke off or failed the handshake
                raise
