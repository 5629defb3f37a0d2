"""The application: every dialect's routes in front of one gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from safelight_gateway import native, playground
from safelight_gateway.dialects import fal, files, hf_inference, hub, openai_images, replicate
from safelight_gateway.errors import bad_request
from safelight_gateway.front import Front
from safelight_gateway.gateway import Gateway
from safelight_gateway.settings import Settings

_DIALECTS = (playground, native, files, hub, hf_inference, openai_images, replicate, fal)
"""Modules with `routes(gateway)`; the first route that matches answers."""


def build_app(settings: Settings) -> Starlette:
    """Return the ASGI application; its `state.gateway` is the `Gateway`."""
    gateway = Gateway(settings)
    routes: list[BaseRoute] = [route for dialect in _DIALECTS for route in dialect.routes(gateway)]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with gateway:
            yield

    app = Starlette(
        routes=routes,
        middleware=[Middleware(Front, settings=settings)],
        exception_handlers={HTTPException: _answer_unknown_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # some clients do not follow
    app.state.gateway = gateway
    return app


async def _answer_unknown_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path} is no route of this gateway"
    response = hf_inference.render_error(bad_request(message, error.status_code))
    response.headers.update(error.headers or {})
    return response
