"""Files: the images that other dialects' answers link to, for whoever has the link."""

from starlette.responses import Response
from starlette.routing import Route

from safelight_gateway.call import Call, endpoint
from safelight_gateway.dialects.hf_inference import render_error
from safelight_gateway.errors import GatewayError
from safelight_gateway.gateway import Gateway
from safelight_gateway.generation import ImageResult


def routes(gateway: Gateway) -> list[Route]:
    """Return the route of the links."""
    return [Route("/files/{name}", endpoint(gateway, _fetch, render_error), methods=["GET"])]


def link_images(call: Call, result: ImageResult) -> tuple[str, ...]:
    """Keep the images of a result and return a URL for each, as the caller can reach it."""
    files = call.gateway.files
    return tuple(f"{call.base_url}/files/{files.put(image)}" for image in result.images)


async def _fetch(call: Call) -> Response:
    file = call.gateway.files.get(call.request.path_params["name"])
    if file is None:
        raise GatewayError(404, "no such file, or its link has expired", "NOT_FOUND")
    headers = {"cache-control": "private, max-age=900", "x-content-type-options": "nosniff"}
    return Response(file.data, media_type=file.mime_type, headers=headers)
