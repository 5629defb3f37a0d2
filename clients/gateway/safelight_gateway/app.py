"""The application: every dialect's routes in front of one gateway."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from safelight_gateway import native, playground
from safelight_gateway.call import endpoint
from safelight_gateway.dialects import files, hf_inference
from safelight_gateway.dialects.builtin import DIALECTS
from safelight_gateway.dialects.dialect import Dialect
from safelight_gateway.errors import bad_request
from safelight_gateway.front import Front
from safelight_gateway.gateway import Gateway
from safelight_gateway.settings import Settings

_OWN_MODULES = (playground, native, files)
"""Modules with `routes(gateway)` that are no dialect."""


def build_app(settings: Settings, dialects: Iterable[Dialect] = DIALECTS) -> Starlette:
    """Return the ASGI application; its `state.gateway` is the `Gateway`.

    Raises:
        OSError: a file of the settings cannot be read.
        ValueError: two dialects claim the same.
    """
    gateway = Gateway(settings, dialects)
    routes = [route for module in _OWN_MODULES for route in module.routes(gateway)]
    routes += _dialect_routes(gateway)
    # Those that begin with a parameter match last, so the order of dialects means nothing.
    routes.sort(key=lambda route: route.path.startswith("/{"))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with gateway:
            yield

    app = Starlette(
        routes=routes,
        middleware=[Middleware(Front, settings=settings, dialects=gateway.dialects)],
        exception_handlers={HTTPException: _answer_unknown_route},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # some clients do not follow
    app.state.gateway = gateway
    return app


def _dialect_routes(gateway: Gateway) -> Iterator[Route]:
    for dialect in gateway.dialects.dialects:
        for route in dialect.routes:
            respond = endpoint(
                gateway, route.handler, dialect.render_error, id_header=dialect.id_header
            )
            yield Route(route.path, respond, methods=[route.method])


async def _answer_unknown_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path} is no route of this gateway"
    response = hf_inference.render_error(bad_request(message, error.status_code))
    response.headers.update(error.headers or {})
    return response
