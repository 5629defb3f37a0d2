"""A gRPC call made frame by frame, for what no well-behaved client does."""

import socket
import struct
from types import TracebackType
from typing import Self

from google.protobuf.message import Message
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, TrailersReceived
from h2.settings import SettingCodes

METHOD = "/safelight.v1.TextToImageService/"


class H2Client:
    """A connection that grants its streams `window` bytes, and no more until it is asked to."""

    def __init__(self, target: str, window: int = 65535) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.connection = H2Connection(
            H2Configuration(header_encoding=None, validate_outbound_headers=False)
        )
        self.connection.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.connection.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what the connection has ready."""
        self.socket.sendall(self.connection.data_to_send())

    def call(self, method: str, request: Message, **metadata: bytes) -> int:
        """Send a whole request; return its stream."""
        stream = self.connection.get_next_available_stream_id()
        headers = {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": (METHOD + method).encode(),
            b":authority": b"localhost",
            b"content-type": b"application/grpc",
            b"te": b"trailers",
            **{name.encode(): value for name, value in metadata.items()},
        }
        message = request.SerializeToString()
        self.connection.send_headers(stream, list(headers.items()))
        self.connection.send_data(stream, struct.pack(">?I", False, len(message)) + message, True)
        self.flush()
        return stream

    def open_window(self, stream: int, size: int = 1 << 24) -> None:
        """Let the service send so many bytes."""
        self.connection.increment_flow_control_window(size)
        self.connection.increment_flow_control_window(size, stream)
        self.flush()

    def read_metadata(self, stream: int) -> dict[str, str]:
        """Read to the end of the stream; return its metadata, the trailing ones included."""
        metadata: dict[str, str] = {}
        while True:
            for event in self._receive():
                if isinstance(event, DataReceived):
                    self.connection.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, ResponseReceived | TrailersReceived):
                    metadata |= {name.decode(): value.decode() for name, value in event.headers}
                elif isinstance(event, StreamEnded):
                    return metadata
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def _receive(self) -> list[Event]:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the service closed the connection")
        return self.connection.receive_data(data)
