"""The route that verifies images."""

from starlette.responses import Response
from starlette.routing import Route

from safelight_gateway.edge.call import Call
from safelight_gateway.edge.endpoint import endpoint
from safelight_gateway.native.routes import render_error
from safelight_gateway.state import AppState


def routes(state: AppState) -> list[Route]:
    """Return the route that verifies images."""
    respond = endpoint(
        state, _verify, render_error, limit_bytes=state.settings.verification.max_image_kib * 1024
    )
    return [Route("/v1/verify", respond, methods=["POST"])]


async def _verify(call: Call) -> Response:
    holder = await call.state.callers.attribute(call.context)
    answer = await call.state.verifier.verify(call.body, holder)
    return Response(answer, media_type="application/json")
