"""OpenAI: the images API, which Nebius and Together share."""

import base64
import time
from typing import Any

from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects import hf_inference
from safelight_gateway.dialects.dialect import Dialect, DialectRoute
from safelight_gateway.dialects.parameters import read_request
from safelight_gateway.edge.call import Call
from safelight_gateway.edge.links import link_images
from safelight_gateway.errors import GatewayError, invalid_field
from safelight_gateway.generation.request import ImageResult

_FORMATS = {"b64_json": "b64_json", "base64": "b64_json", "url": "url"}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_NEVER_WORTH_REPEATING = (409, 500, 504)


def image_routes(root: str, default_format: str) -> tuple[DialectRoute, ...]:
    """Return the routes of the images API below a root such as `/nebius`.

    /v1/v1 works too, since base URLs often end in the /v1 that clients add.

    Args:
        root: Path before /v1.
        default_format: Format of images unless the body names one: b64_json or url.
    """

    async def generate(call: Call) -> Response:
        return await _generate(call, default_format)

    return tuple(
        DialectRoute("POST", f"{root}{version}/images/generations", generate)
        for version in ("/v1", "/v1/v1")
    )


def render_error(error: GatewayError) -> Response:
    """Render an error in the format of OpenAI."""
    content = {
        "message": error.message,
        "type": _TYPES.get(
            error.status, "invalid_request_error" if error.status < 500 else "server_error"
        ),
        "param": error.violations[0].field.removeprefix("parameters.")
        if error.violations
        else None,
        "code": error.reason.lower(),
    }
    response = JSONResponse({"error": content}, error.status)
    if error.status in _NEVER_WORTH_REPEATING:
        response.headers["x-should-retry"] = "false"
    return response


async def _generate(call: Call, default_format: str) -> Response:
    body = call.json()
    model = (str(body.get("model") or ""),)
    if hf_inference.is_request(body):
        return await hf_inference.generate_bytes(call, model)
    format_ = _FORMATS.get(str(body.get("response_format") or default_format))
    if format_ is None:
        raise invalid_field("response_format", f"must be one of {', '.join(_FORMATS)}")
    names = ("model", "response_format", "user")
    request = read_request(call, body, model=model, own_names=names)
    result = await call.state.generator.run(request)
    content = {
        "id": call.request_id,
        "object": "list",
        "created": int(time.time()),
        "model": request.model[0] or result.model,
        "data": _render_images(call, result, format_),
    }
    return JSONResponse(content, headers=hf_inference.result_headers(result))


def _render_images(call: Call, result: ImageResult, format_: str) -> list[dict[str, Any]]:
    """Render the images: bytes or URLs, never both, since some clients prefer the URL."""
    if format_ == "url":
        contents = link_images(call, result)
    else:
        contents = tuple(base64.b64encode(image.data).decode() for image in result.images)
    return [
        {"index": index, "type": format_, format_: content}
        for index, content in enumerate(contents)
    ]


DIALECT = Dialect(
    name="openai",
    routes=image_routes("", "b64_json"),
    render_error=render_error,
    parameter_aliases={"output_compression": "output_quality"},
)
