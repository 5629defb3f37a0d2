"""The playground: a self-contained page for trying the service."""

import base64
import hashlib
import html
import re
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from safelight_gateway.state import AppState

_PAGE = "index.html"
_TARGET = '<meta name="grpc-target" content="127.0.0.1:50051" data-tls="false">'


def routes(state: AppState) -> list[Route]:
    """Return the route of the page."""
    page = name_target(
        files(__package__).joinpath(_PAGE).read_text("utf-8"),
        state.settings.target,
        is_encrypted=state.settings.target_tls is not None,
    )
    etag = f'"{hashlib.sha256(page.encode()).hexdigest()[:32]}"'
    headers = {
        "cache-control": "no-cache",
        "content-security-policy": content_security_policy(page),
        "cross-origin-opener-policy": "same-origin",
        "etag": etag,
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }

    async def show(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(page, media_type="text/html", headers=headers)

    return [Route("/", show, methods=["GET"])]


def name_target(page: str, target: str, *, is_encrypted: bool) -> str:
    """Return the page with the service's gRPC target, for the code that it shows."""
    before, placeholder, after = page.partition(_TARGET)
    assert placeholder
    content, tls = html.escape(target), str(is_encrypted).lower()
    return f'{before}<meta name="grpc-target" content="{content}" data-tls="{tls}">{after}'


def content_security_policy(page: str) -> str:
    """Return the policy that allows only the page's own script and style."""
    script, style = (_hash(page, tag) for tag in ("script", "style"))
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {script}",
            f"style-src {style}",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _hash(page: str, tag: str) -> str:
    (content,) = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
