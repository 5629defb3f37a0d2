"""Links: URLs of images, and the route that serves them."""

import base64

from safelight import Image
from starlette.responses import Response
from starlette.routing import Route

from safelight_gateway.edge.call import Call
from safelight_gateway.edge.endpoint import endpoint, render_plain
from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.request import ImageResult
from safelight_gateway.state import AppState


def routes(state: AppState) -> list[Route]:
    """Return the route that serves linked images."""
    return [Route("/files/{name}", endpoint(state, _fetch, render_plain), methods=["GET"])]


async def link_images(call: Call, result: ImageResult) -> tuple[str, ...]:
    """Store the images of a result; return a URL for each, below the caller's base URL.

    Raises:
        GatewayError: the service refuses the token.
    """
    holder = await call.state.callers.attribute(call.context)
    return tuple(link_image(call, image, holder) for image in result.images)


def link_image(call: Call, image: Image, holder: str) -> str:
    """Store an image that counts for a holder; return its URL."""
    return f"{call.base_url}/files/{call.state.files.put(image, holder)}"


def data_urls(result: ImageResult) -> tuple[str, ...]:
    """Return a data: URL for each image."""
    return tuple(
        f"data:{image.mime_type};base64,{base64.b64encode(image.data).decode()}"
        for image in result.images
    )


async def _fetch(call: Call) -> Response:
    file = call.state.files.get(call.request.path_params["name"])
    if file is None:
        raise GatewayError(404, "file not found, or its link has expired", "NOT_FOUND")
    headers = {"cache-control": "private, max-age=900"}
    return Response(file.data, media_type=file.mime_type, headers=headers)
