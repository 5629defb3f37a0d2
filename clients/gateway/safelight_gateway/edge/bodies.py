"""Bodies: read whole, within bounds of size and of the memory of all of them."""

from starlette.requests import Request

from safelight_gateway.errors import GatewayError, bad_request
from safelight_gateway.shares import Shares

BODY_SPACE = "safelight.body_space"
"""Scope key: the `BodySpace` of a request."""
_RETRY_S = 1.0


class BodySpace:
    """Memory for the body of one request."""

    def __init__(self, shares: Shares, holder: str) -> None:
        """Take nothing yet.

        Args:
            shares: Memory for all bodies, in bytes.
            holder: Address of the client.
        """
        self._shares = shares
        self._holder = holder
        self._size_bytes = 0

    def grow(self, count: int) -> None:
        """Take memory for more bytes.

        Raises:
            GatewayError: the bodies of this address take more than their share.
        """
        if not self._shares.take(self._holder, count):
            raise GatewayError(
                429, "too many large requests at once; try again later", "TOO_LARGE", (), _RETRY_S
            )
        self._size_bytes += count

    def release(self) -> None:
        """Give the memory back, once the request has been answered."""
        if self._size_bytes:
            self._shares.give_back(self._holder, self._size_bytes)
            self._size_bytes = 0


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Return the whole body.

    Raises:
        ClientDisconnect: the client has left.
        GatewayError: the body is too large, or all bodies are.
    """
    space: BodySpace | None = request.scope.get(BODY_SPACE)
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit_bytes:
            raise _too_large(limit_bytes)
        if space is not None:
            space.grow(len(chunk))
        body += chunk
    return bytes(body)


def _too_large(limit_bytes: int) -> GatewayError:
    return bad_request(f"the body may have at most {limit_bytes} bytes", 413)
