"""The application: the routes of all dialects, over one shared state."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from safelight_gateway import connect, playground
from safelight_gateway.dialects.builtin import DIALECTS
from safelight_gateway.dialects.dialect import Dialect
from safelight_gateway.edge import links
from safelight_gateway.edge.endpoint import endpoint, render_plain, render_response
from safelight_gateway.edge.middleware import EdgeMiddleware
from safelight_gateway.errors import bad_request
from safelight_gateway.native import routes as native
from safelight_gateway.settings import Settings
from safelight_gateway.state import AppState
from safelight_gateway.verification import routes as verification

_OWN_MODULES = (playground, native, verification, links, connect)
"""Modules outside the registry; each has `routes(state)`."""


def build_app(settings: Settings, dialects: Iterable[Dialect] = DIALECTS) -> Starlette:
    """Build the ASGI application.

    Raises:
        OSError: a file that the settings name cannot be read.
        ValueError: two dialects claim the same name, or the trust anchors cannot be used.
    """
    state = AppState(settings, dialects)
    routes = [route for module in _OWN_MODULES for route in module.routes(state)]
    routes += _dialect_routes(state)
    # Match routes with the widest parameters last, so that the order of dialects is irrelevant.
    routes.sort(key=lambda route: (route.path.startswith("/{"), route.path.endswith(":path}")))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with state:
            yield

    app = Starlette(
        routes=routes,
        middleware=[Middleware(EdgeMiddleware, settings=settings, dialects=state.dialects)],
        exception_handlers={HTTPException: _unknown_route(state)},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # some clients follow no redirects
    return app


def _dialect_routes(state: AppState) -> Iterator[Route]:
    for dialect in state.dialects:
        for route in dialect.routes:
            respond = endpoint(
                state, route.handler, dialect.render_error, id_header=dialect.id_header
            )
            yield Route(route.path, respond, methods=[route.method])


def _unknown_route(state: AppState) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return a handler of paths without a route, in the format of the API that they belong to."""

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.scope["path"]
        message = f"no route matches {request.method} {path!r}"
        proxied = state.dialects.proxy_at(path.rstrip("/"))
        dialect = proxied or state.dialects.dialect_at(path)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = (error.headers or {}).get("Allow", "another method")
            message = f"{path!r} takes {allowed}, not {request.method}"
        elif proxied is not None and proxied.proxy is not None:
            message += f"; {proxied.proxy.header} must be a URL at {', '.join(proxied.hosts)}"
        elif dialect is not None:
            root = f"/{path.split('/')[1]}/"
            routes = (each for each in dialect.routes if each.path.startswith(root))
            shown = ", ".join(f"{each.method} {each.path}" for each in routes)
            message += f"; {dialect.name} has {shown.replace(':path}', '}')}"
        render = render_plain if dialect is None else dialect.render_error
        return await render_response(bad_request(message, error.status_code), render, error.headers)

    return answer
