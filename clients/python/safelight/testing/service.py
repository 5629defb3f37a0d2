"""The fake service: the contract without a model."""

from collections.abc import Sequence
from concurrent import futures
from contextlib import ExitStack

import grpc
from google.protobuf.message import Message

from safelight.testing.connections import ConnectionProxy
from safelight.testing.replay import Replay
from safelight.testing.servicer import FakeServicer
from safelight.testing.vectors import Vector, check_names
from safelight.v1.text_to_image_pb2_grpc import (
    add_TextToImageServiceServicer_to_server,
)

_MAX_CALLS = 64


class FakeService:
    """A service for tests of programs that call Safelight: it needs no torch and draws at once.

    It listens on 127.0.0.1 and answers every method as the contract says: events in order, images
    that are PNG files of one colour, violations by field, ids, watchers, cancelling and `linger`.
    Use it in a `with` block:

    >>> from safelight import Client
    >>> from safelight.testing import FakeService
    >>> with FakeService() as target, Client(target) as client:
    ...     client.text_to_image("a red circle", width=128, height=64).size
    (128, 64)

    Vectors script failures. A vector answers the calls whose prompt, generation id or model is its
    name; ListModels has none of these, so `x-vector` in the metadata names it:

    >>> from safelight import OutOfMemoryError
    >>> failure = {
    ...     "code": "RESOURCE_EXHAUSTED",
    ...     "details": [{"ErrorInfo": {"reason": "OUT_OF_MEMORY", "domain": "safelight"}}],
    ... }
    >>> vector = {"name": "a huge poster", "calls": [{"script": [{"status": failure}]}]}
    >>> with FakeService(vectors=[vector]) as target, Client(target) as client:
    ...     try:
    ...         client.text_to_image("a huge poster")
    ...     except OutOfMemoryError as error:
    ...         print(error.reason)
    OUT_OF_MEMORY

    Attributes:
        requests: The requests of all calls so far, as the contract's messages.
        replays: The replay of each vector, by name.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        token: str | None = None,
        step_s: float = 0.0,
        vectors: Sequence[Vector] = (),
        repeats: bool = False,
    ) -> None:
        """Make a service, which starts when its `with` block is entered.

        Args:
            port: Port on 127.0.0.1; 0 for a free one.
            token: Token that calls have to send; None for none.
            step_s: Seconds between two steps of a generation.
            vectors: Scripted exchanges.
            repeats: Whether the calls of a vector begin anew after its last.

        Raises:
            ValueError: two vectors have the same name.
        """
        check_names(vectors)
        self.requests: list[Message] = []
        self._port = port
        self._token = token
        self._step_s = step_s
        self._proxy: ConnectionProxy | None = None
        self.replays = {
            vector["name"]: Replay(vector, self._act, repeats=repeats) for vector in vectors
        }
        self._stack = ExitStack()

    def __enter__(self) -> str:
        """Start the service; return its target, 127.0.0.1:PORT."""
        pool = futures.ThreadPoolExecutor(_MAX_CALLS)
        server = grpc.server(pool, options=(("grpc.so_reuseport", 0),))
        servicer = FakeServicer(self.requests, self.replays, self._token, self._step_s)
        add_TextToImageServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port(f"127.0.0.1:{0 if self.replays else self._port}")
        server.start()
        self._stack.callback(pool.shutdown)
        self._stack.callback(lambda: server.stop(None).wait())
        self._stack.callback(servicer.stop)
        if self.replays:
            self._proxy = self._stack.enter_context(ConnectionProxy(self._port, port))
            port = self._proxy.port
        return f"127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        """Stop the service, and end all calls."""
        self._stack.close()

    def _act(self, peer: str, action: str, message_count: int) -> None:
        if self._proxy is not None:
            self._proxy.act(peer, action, message_count)
