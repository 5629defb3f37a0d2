"""Raw connections, for requests that no HTTP client sends."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

PARTIAL_HEAD = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"


@contextmanager
def connected(
    url: str, source: str = "127.0.0.1", receive_bytes: int = 0
) -> Iterator[socket.socket]:
    """Connect to a server from an address of this machine.

    Args:
        url: URL of the server.
        source: Address to connect from; each in 127.0.0.0/8 is one.
        receive_bytes: Size of the receive buffer; 0 for the system's.
    """
    address = urlsplit(url)
    with socket.socket() as connection:
        connection.settimeout(20)
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.bind((source, 0))
        connection.connect((address.hostname, address.port))
        yield connection


def post(length: int, path: str = "/v1/generate") -> bytes:
    """Return the head of a request with a body of this length."""
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()


def read_to_the_end(connection: socket.socket) -> bytes:
    """Return everything until the server closes the connection."""
    received = bytearray()
    try:
        while data := connection.recv(2**16):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


def read_status(connection: socket.socket) -> int:
    """Return the status of the next response; 0 if the server closes the connection instead.

    The body is read unless it is a stream.
    """
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
    except (http.client.RemoteDisconnected, ConnectionResetError):
        return 0
    if response.length is not None:
        response.read()
    return response.status
