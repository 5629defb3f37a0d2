"""The protocol: uvicorn's HTTP/1.1 with time limits, and with errors that nobody can flood."""

import asyncio
import enum
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from safelight_gateway.server.connections import Connections

NO_SNIFFING = ("x-content-type-options", "nosniff")
"""Header of every response: browsers must not guess another type."""

ABORT = "safelight.abort"
"""Key of a request's state: a function that ends its connection at once, unread data included."""


class _Phase(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    WORK = enum.auto()
    IDLE = enum.auto()


def plain_response(status: int, message: str) -> bytes:
    """Return a whole response of the server itself, after which the connection closes."""
    lines = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: text/plain; charset=utf-8",
        f"content-length: {len(message)}",
        ": ".join(NO_SNIFFING),
        *(("retry-after: 1",) if status == HTTPStatus.TOO_MANY_REQUESTS else ()),
        "connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n" + message).encode()


class BoundedProtocol(H11Protocol):
    """One connection."""

    def __init__(
        self,
        connections: Connections,
        on_closed: Callable[[], None],
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
    ) -> None:
        super().__init__(config, server_state, {**app_state, ABORT: self._abort})
        self._connections = connections
        self._on_closed = on_closed
        self._phase = _Phase.HEAD
        self._request: object = None
        self._since_s = self.loop.time()
        self._unread_since_s: float | None = None
        self._closing_since_s: float | None = None

    @property
    def idle_since_s(self) -> float | None:
        """Begin of its idleness on the loop's clock; None while a request is in progress."""
        return self._since_s if self._phase is _Phase.IDLE else None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place of the connection."""
        self._connections.discard(self)
        self._on_closed()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._note_phase(has_request_begun=True)

    def on_response_complete(self) -> None:
        """Wait for the next request, or begin with one that is already here."""
        super().on_response_complete()
        self._note_phase(has_request_begun=bool(self.conn.trailing_data[0]))

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        super().pause_writing()
        self._unread_since_s = self.loop.time()

    def resume_writing(self) -> None:
        """Note that the client has read."""
        super().resume_writing()
        self._unread_since_s = None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP. uvicorn's own would raise while another response is sent."""
        self._refuse(HTTPStatus.BAD_REQUEST, msg)

    def enforce(self, now_s: float) -> None:
        """End the connection if it has used up its time."""
        limits = self._connections.settings
        elapsed_s = now_s - self._since_s
        if self.transport.is_closing():
            self._closing_since_s = self._closing_since_s or now_s
            if now_s - self._closing_since_s > limits.stall_s:
                self.transport.abort()
        elif self._unread_since_s is not None and now_s - self._unread_since_s > limits.stall_s:
            self.transport.abort()
        elif self._phase is _Phase.IDLE and elapsed_s > limits.idle_s:
            self.end()
        elif self._phase is _Phase.HEAD and elapsed_s > limits.head_s:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The head of the request did not arrive.")
        elif self._phase is _Phase.BODY and elapsed_s > limits.body_s:
            if self.cycle.response_complete:
                self.end()
                return
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "The body of the request did not arrive.")

    def end(self) -> None:
        """End the connection, which is idle, and free its place at once."""
        self._phase = _Phase.WORK  # is not idle again
        self.transport.close()
        self._on_closed()

    def _abort(self) -> None:
        self.transport.abort()

    def _note_phase(self, *, has_request_begun: bool) -> None:
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            phase = _Phase.BODY
        elif state is h11.IDLE:
            phase = _Phase.HEAD if has_request_begun else _Phase.IDLE
        else:
            phase = _Phase.WORK
        # Time does not begin again with each part of the same request.
        if (phase, self.cycle) != (self._phase, self._request):
            self._phase, self._request, self._since_s = phase, self.cycle, self.loop.time()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer and close; only close if a response has begun."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        self.transport.write(plain_response(status, message))
        self.transport.close()
