"""Links: images that the service has made are not lost while it cannot be asked."""

import pytest
from starlette.requests import Request

from safelight_gateway.edge.call import Call
from safelight_gateway.edge.links import link_images
from safelight_gateway.edge.middleware import ADDRESS, BASE_URL, REQUEST_ID
from safelight_gateway.generation.request import ImageResult
from safelight_gateway.settings import Settings
from safelight_gateway.state import AppState
from tests.gateway.stores.images import image


@pytest.mark.anyio
async def test_a_finished_image_is_linked_though_the_service_is_gone() -> None:
    """As it is when it stops after its last generation."""
    scope = {ADDRESS: "192.0.2.1", BASE_URL: "http://a.example", REQUEST_ID: "1"}
    request = Request({"type": "http", "headers": [], **scope})
    result = ImageResult(
        images=(image(b"x"),), model="shapes", compute_s=1.0, compute_type="cpu", ignored_fields=()
    )
    async with AppState(Settings(target="127.0.0.1:1")) as state:
        [url] = await link_images(Call(state, request, b""), result)
        file = state.files.get(url.removeprefix("http://a.example/files/"))
    assert file is not None
    assert file.data == b"x"
