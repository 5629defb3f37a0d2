"""HTTP/2 client: gRPC calls frame by frame, to misbehave as no gRPC client does."""

import socket
import struct
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Self

from google.protobuf.message import Message
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

METHOD = "/safelight.v1.TextToImageService/"
HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": f"{METHOD}Generate",
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}
"""Headers of a call of Generate."""


def frame_message(message: bytes, *, is_compressed: bool = False, size: int | None = None) -> bytes:
    """Prefix a message with its length, or with another `size`."""
    return struct.pack(">?I", is_compressed, len(message) if size is None else size) + message


class H2Client:
    """Connection that grants its streams `window` bytes, and more only by `open_window`."""

    def __init__(self, target: str, window: int = 65535) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.connection = H2Connection(
            H2Configuration(header_encoding=None, validate_outbound_headers=False)
        )
        self._unread: deque[Event] = deque()
        # Set initially: a later value would apply only after the service's acknowledgement.
        self.connection.local_settings = Settings(
            client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window}
        )
        self.connection.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send the pending bytes of the connection."""
        self.socket.sendall(self.connection.data_to_send())

    def call(self, method: str, request: Message, **metadata: bytes) -> int:
        """Send a whole request; return its stream."""
        return self.send(frame_message(request.SerializeToString()), METHOD + method, metadata)

    def send(
        self,
        body: bytes,
        path: str = f"{METHOD}Generate",
        metadata: Mapping[str, bytes] = MappingProxyType({}),
    ) -> int:
        """Send as much of a call's body as the service accepts; return its stream.

        A service that refuses the call answers and closes the stream before the end of the body.
        """
        stream = self.connection.get_next_available_stream_id()
        headers = {
            **{name.encode(): value.encode() for name, value in HEADERS.items()},
            b":path": path.encode(),
            **{name.encode(): value for name, value in metadata.items()},
        }
        self.connection.send_headers(stream, list(headers.items()))
        self._send_body(stream, body)
        return stream

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self.connection.reset_stream(stream, ErrorCodes.CANCEL)
        self.flush()

    def abort(self) -> None:
        """Close the connection with a TCP reset, as the kernel does for a dead process."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def open_window(self, stream: int, size: int = 1 << 24) -> None:
        """Allow the service to send more bytes."""
        self.connection.increment_flow_control_window(size)
        self.connection.increment_flow_control_window(size, stream)
        self.flush()

    def read_metadata(self, stream: int) -> dict[str, str]:
        """Read to the end of the stream; return its metadata, including trailers."""
        metadata: dict[str, str] = {}
        while not isinstance(event := self.read(), StreamEnded):
            if isinstance(event, DataReceived):
                self.connection.acknowledge_received_data(event.flow_controlled_length, stream)
                self.flush()
            elif isinstance(event, ResponseReceived | TrailersReceived):
                metadata |= {name.decode(): value.decode() for name, value in event.headers}
        return metadata

    def read(self) -> Event:
        """Return the next bytes or events from the service."""
        while not self._unread:
            self._receive()
        return self._unread.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the service closed the connection")
        self._unread.extend(self.connection.receive_data(data))
        self.flush()

    def _has_ended(self, stream: int) -> bool:
        """Whether the unread data includes the end of the stream."""
        return any(
            isinstance(event, StreamEnded | StreamReset) and event.stream_id == stream
            for event in self._unread
        )

    def _send_body(self, stream: int, body: bytes) -> None:
        while body and not self._has_ended(stream):
            size = min(
                len(body),
                self.connection.local_flow_control_window(stream),
                self.connection.max_outbound_frame_size,
            )
            if size:
                self.connection.send_data(stream, body[:size], end_stream=size == len(body))
                body = body[size:]
                self.flush()
            else:
                self._receive()
