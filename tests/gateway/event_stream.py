"""HTTP calls of the native routes, events included, with nothing but the standard library."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has been read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a stream."""

    kind: str
    id: str | None
    data: dict[str, Any]


@contextmanager
def opened(
    url: str,
    method: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
) -> Iterator[http.client.HTTPResponse]:
    """Make a request; leaving the block closes the connection, whatever is still to come."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    content = None if body is None else json.dumps(body)
    try:
        connection.request(method, path, content, dict(headers or {}))
        with connection.getresponse() as response:
            yield response
    finally:
        connection.close()


def call(
    url: str, method: str = "GET", body: object = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Make a request and read the whole answer."""
    with opened(url, method, body, headers) as response:
        return Answer(response.status, response.headers, response.read())


def read_events(response: http.client.HTTPResponse) -> Iterator[ServerSentEvent]:
    """Yield the events of a stream as they come."""
    assert response.status == 200, response.read()
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    fields: dict[str, str] = {}
    for line in response:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield ServerSentEvent(fields["event"], fields.get("id"), json.loads(fields["data"]))
            fields = {}


def generate(
    url: str, request: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> list[ServerSentEvent]:
    """Return all events of a generation."""
    with opened(url, "POST", request, headers) as response:
        return list(read_events(response))
