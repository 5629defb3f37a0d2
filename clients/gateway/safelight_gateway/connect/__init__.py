"""Connect and gRPC-Web: the contract for the generated stubs of browsers.

The routes exist where the extra `connect` is installed.
"""

from importlib.util import find_spec

from starlette.routing import Route

from safelight_gateway.state import AppState


def routes(state: AppState) -> list[Route]:
    """Return the routes of the contract's methods; none without the extra."""
    if find_spec("connectrpc") is None:
        return []
    from safelight_gateway.connect.endpoint import ConnectEndpoint
    from safelight_gateway.connect.relay import endpoints

    answer = ConnectEndpoint(state)
    return [Route(path, answer, methods=["POST"]) for path in endpoints()]
