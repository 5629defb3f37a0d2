"""Plain HTTP requests, for details that client libraries hide."""

import http.client
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import PIL.Image


@dataclass(frozen=True, slots=True)
class Answer:
    """Response, with lower-case header names."""

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


def open_connection(url: str, timeout_s: float = 60.0) -> http.client.HTTPConnection:
    """Open a connection to the server of a URL."""
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)


@contextmanager
def opened(
    url: str,
    method: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
) -> Iterator[http.client.HTTPResponse]:
    """Send a request with a body of JSON or bytes; yield the response.

    Leaving the block closes the connection, even in the middle of the response.
    """
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with closing(open_connection(url, timeout_s)) as connection:
        connection.request(method, path, data, dict(headers or {}))
        with connection.getresponse() as response:
            yield response


def call(
    url: str, method: str = "GET", body: object = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send a request and read the whole response."""
    with opened(url, method, body, headers) as response:
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, names, response.read())


def post(url: str, body: object, **headers: str) -> Answer:
    """Send a POST request; headers are written with underscores."""
    return call(url, "POST", body, {k.replace("_", "-"): v for k, v in headers.items()})


def get(url: str, **headers: str) -> Answer:
    """Send a GET request; headers are written with underscores."""
    return call(url, "GET", None, {k.replace("_", "-"): v for k, v in headers.items()})
