"""OpenAI's images API, as OpenAI, Together and Nebius have it."""

import base64
import time
from functools import partial
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from safelight_gateway.call import Call, endpoint
from safelight_gateway.dialects import hf_inference
from safelight_gateway.dialects.files import link_images
from safelight_gateway.errors import GatewayError, invalid_field
from safelight_gateway.gateway import Gateway
from safelight_gateway.generation import ImageResult
from safelight_gateway.parameters import read_request

_PATH = "/images/generations"
_TOGETHER = "/together/v1", "/together/v1/v1"
_OTHERS = "/nebius/v1", "/nebius/v1/v1", "/v1", "/v1/v1"
"""A base URL with /v1 and a client that adds it, too, is a mistake that is easy to make."""

_TOGETHER_HOSTS = ("api.together.xyz", "api.together.ai")
_FORMATS = {"b64_json": "b64_json", "base64": "b64_json", "url": "url"}
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_NEVER_WORTH_REPEATING = (409, 500, 504)


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes of all three."""

    def route(root: str, default_format: str) -> Route:
        handler = partial(_generate, default_format=default_format)
        return Route(f"{root}{_PATH}", endpoint(gateway, handler, render_error), methods=["POST"])

    return [
        *(route(root, "url") for root in _TOGETHER),
        *(route(root, "b64_json") for root in _OTHERS),
    ]


def render_error(error: GatewayError) -> Response:
    """Render an error as OpenAI does."""
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
    if call.request.url.hostname in _TOGETHER_HOSTS:
        default_format = "url"
    format_ = _FORMATS.get(str(body.get("response_format") or default_format))
    if format_ is None:
        raise invalid_field("response_format", f"must be one of {', '.join(_FORMATS)}")
    names = ("model", "response_format", "user")
    request = read_request(call, body, model=model, own_names=names)
    result = await call.gateway.generator.run(request)
    content = {
        "id": call.request_id,
        "object": "list",
        "created": int(time.time()),
        "model": request.model[0] or result.model,
        "data": _render_images(call, result, format_),
    }
    return JSONResponse(content, headers=hf_inference.result_headers(result))


def _render_images(call: Call, result: ImageResult, format_: str) -> list[dict[str, Any]]:
    """Render the images; with bytes there must be no URL, which a client would prefer."""
    if format_ == "url":
        contents = link_images(call, result)
    else:
        contents = tuple(base64.b64encode(image.data).decode() for image in result.images)
    return [
        {"index": index, "type": format_, format_: content}
        for index, content in enumerate(contents)
    ]
