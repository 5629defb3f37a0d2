"""A gRPC call made frame by frame, for what no well-behaved client does."""

import socket
import struct
from types import TracebackType
from typing import Self

from google.protobuf.message import Message
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamEnded, TrailersReceived
from h2.settings import SettingCodes

METHOD = "/safelight.v1.TextToImageService/"


class H2Client:
    """A connection that grants its streams `window` bytes, and no more until it is asked to."""

    def __init__(self, target: str, window: int = 65535) -> None:
        host, _, port = target.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self.connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.connection.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.connection.initiate_connection()
        self.flush()

    def flush(self) -> None:
        """Send what the connection has ready."""
        self.socket.sendall(self.connection.data_to_send())

    def call(self, method: str, request: Message) -> int:
        """Send a whole request; return its stream."""
        stream = self.connection.get_next_available_stream_id()
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": METHOD + method,
            ":authority": "localhost",
            "content-type": "application/grpc",
            "te": "trailers",
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

    def read_trailers(self, stream: int) -> dict[str, str]:
        """Read to the end of the stream; return its trailing metadata."""
        trailers: dict[str, str] = {}
        while True:
            for event in self._receive():
                if isinstance(event, DataReceived):
                    self.connection.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, TrailersReceived):
                    trailers = {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, StreamEnded):
                    return trailers
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
