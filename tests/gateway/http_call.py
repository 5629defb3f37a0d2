"""Plain HTTP requests, for what no client's library shows."""

import http.client
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import PIL.Image


@dataclass(frozen=True, slots=True)
class Answer:
    """A response; the names of its headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def image(self) -> PIL.Image.Image:
        """The body, decoded."""
        return PIL.Image.open(io.BytesIO(self.body))


def open_connection(url: str) -> http.client.HTTPConnection:
    """Open a connection to the server of a URL."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)


def call(
    method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send a request, with a body of JSON or of bytes, and read the response."""
    parts = urlsplit(url)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection = open_connection(url)
    try:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, path, data, dict(headers or {}))
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())
    finally:
        connection.close()


def post(url: str, body: object, **headers: str) -> Answer:
    """Send a POST request; headers are written with underscores."""
    return call("POST", url, body, {k.replace("_", "-"): v for k, v in headers.items()})


def get(url: str, **headers: str) -> Answer:
    """Send a GET request; headers are written with underscores."""
    return call("GET", url, None, {k.replace("_", "-"): v for k, v in headers.items()})
