"""Forwarding: the origin of a request, as trusted proxies state it."""

import logging
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import Scope

from safelight_settings import TrustedProxies, normalize_host

_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9a-fA-F:.]+\](:\d{1,5})?", re.ASCII)
_PREFIX = re.compile(r"(/[\w.~-]+)+", re.ASCII)
_UNKNOWN_HOST = "localhost"

_log = logging.getLogger("safelight_gateway")


@dataclass(frozen=True, slots=True)
class Origin:
    """How a client reached the gateway.

    Attributes:
        address: IP address of the client; empty for unix sockets.
        scheme: http or https.
        host: Host, with the port if there was one.
        prefix: Path prefix, without a trailing slash; None if no proxy stated one.
    """

    address: str
    scheme: str
    host: str
    prefix: str | None


class Forwarding:
    """Reads `X-Forwarded-...` headers of trusted proxies and ignores those of others."""

    def __init__(self, proxies: TrustedProxies) -> None:
        self._proxies = proxies
        self._has_warned = False

    def find_origin(self, scope: Scope, headers: Headers) -> Origin:
        """Return the origin of a request."""
        peer = normalize_host(scope["client"][0]) if scope.get("client") else ""
        address, hop_count = self._proxies.find_client(
            peer, ",".join(headers.getlist("x-forwarded-for"))
        )
        if hop_count == 0:
            self._warn_of_ignored(peer, headers)

        def stated(name: str) -> str:
            """Return what the outermost trusted proxy stated: each may have appended a value."""
            values = ",".join(headers.getlist(f"x-forwarded-{name}")).split(",")
            return values[max(0, len(values) - hop_count)].strip() if hop_count else ""

        scheme = stated("proto").lower()
        host = stated("host") or headers.get("host", "")
        prefix = stated("prefix").rstrip("/")
        return Origin(
            address,
            scheme if scheme in ("http", "https") else str(scope.get("scheme", "http")),
            host if _HOST.fullmatch(host) else _UNKNOWN_HOST,
            prefix if _PREFIX.fullmatch(prefix) else None,
        )

    def _warn_of_ignored(self, peer: str, headers: Headers) -> None:
        """Warn once: behind a proxy, a missing setting shows as wrong links."""
        if not self._has_warned and any(name.startswith("x-forwarded-") for name in headers):
            self._has_warned = True
            _log.warning(
                "ignored X-Forwarded headers of %s, which is not one of trusted_proxies", peer
            )
