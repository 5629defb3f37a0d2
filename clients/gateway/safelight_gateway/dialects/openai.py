"""OpenAI: the images API, which Nebius and Together share."""

import base64
import time
from typing import Any

from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects import hf_inference
from safelight_gateway.dialects.dialect import Dialect, DialectRoute, Refusal
from safelight_gateway.dialects.openai_models import model_routes
from safelight_gateway.dialects.openai_stream import stream_images
from safelight_gateway.edge.call import Call
from safelight_gateway.edge.links import link_images
from safelight_gateway.errors import GatewayError, invalid_field
from safelight_gateway.fields.parameters import read_request
from safelight_gateway.fields.rules import IMAGE_INPUT, is_empty
from safelight_gateway.fields.values import flag, integer, model_id
from safelight_gateway.generation.request import ImageResult

OWN_FIELDS = ("model", "response_format", "stream", "partial_images")
_MAX_PARTIAL_IMAGES = 3
_LINKING_MODELS = "dall-e-"
"""Models whose users expect a link unless they ask for bytes."""

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

    versions = tuple(f"{root}{version}" for version in ("/v1", "/v1/v1"))
    return (
        *(DialectRoute("POST", f"{path}/images/generations", generate) for path in versions),
        *(route for path in versions for route in model_routes(path)),
    )


def render_error(error: GatewayError) -> Response:
    """Render an error in the format of OpenAI."""
    response = JSONResponse({"error": describe_error(error)}, error.status)
    if error.status in _NEVER_WORTH_REPEATING:
        response.headers["x-should-retry"] = "false"
    return response


def describe_error(error: GatewayError) -> dict[str, Any]:
    """Return an error as OpenAI's clients read it in bodies and streams."""
    usual = "invalid_request_error" if error.status < 500 else "server_error"
    return {
        "message": error.message,
        "type": _TYPES.get(error.status, usual),
        "param": error.violations[0].field if error.violations else None,
        "code": error.reason.lower(),
    }


async def _generate(call: Call, default_format: str) -> Response:
    body = call.json()
    model = (model_id("model", body.get("model")),)
    if hf_inference.is_request(body):
        return await hf_inference.generate_bytes(call, model)
    is_stream = flag("stream", _given(body, "stream", False))
    format_ = _read_format(body, model[0], default_format, is_stream)
    preview_count = _read_preview_count(body, is_stream)
    request = read_request(
        call, body, model=model, own_fields=OWN_FIELDS, preview_count=preview_count
    )
    if preview_count and request.count > 1:
        name = request.field_names.names["image_count"]
        raise invalid_field(name, "must be 1 with partial_images, which do not say whose they are")
    if is_stream:
        return await stream_images(call, request, describe_error)
    result = await call.state.generator.run(request)
    content = {
        "id": call.request_id,
        "object": "list",
        "created": int(time.time()),
        "model": request.model[0] or result.model,
        "size": f"{result.images[0].width}x{result.images[0].height}",
        "output_format": result.images[0].mime_type.removeprefix("image/"),
        "data": await _render_images(call, result, format_),
    }
    return JSONResponse(content, headers=hf_inference.result_headers(result))


def _read_format(body: dict[str, Any], model: str, default: str, is_stream: bool) -> str:
    """Return b64_json or url. A stream holds bytes; most models' users expect the default."""
    if is_stream or not model.lower().startswith(_LINKING_MODELS):
        usual = "b64_json" if is_stream else default
    else:
        usual = "url"
    asked = _given(body, "response_format", usual)
    format_ = _FORMATS.get(asked) if isinstance(asked, str) else None
    if format_ is None or (is_stream and format_ == "url"):
        allowed = "b64_json in a stream" if is_stream else f"one of {', '.join(_FORMATS)}"
        raise invalid_field("response_format", f"must be {allowed}")
    return format_


def _given(body: dict[str, Any], name: str, default: object) -> Any:
    """Return a field's value; the default if it asks for nothing."""
    value = body.get(name)
    return default if is_empty(value) else value


def _read_preview_count(body: dict[str, Any], is_stream: bool) -> int:
    count = integer("partial_images", _given(body, "partial_images", 0))
    if not 0 <= count <= _MAX_PARTIAL_IMAGES:
        raise invalid_field("partial_images", f"must be from 0 to {_MAX_PARTIAL_IMAGES}")
    if count and not is_stream:
        raise invalid_field("partial_images", "needs stream: true")
    return count


async def _render_images(call: Call, result: ImageResult, format_: str) -> list[dict[str, Any]]:
    """Render the images: bytes or URLs, never both, since some clients prefer the URL."""
    if format_ == "url":
        contents = await link_images(call, result)
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
    own_fields=OWN_FIELDS,
    hints=("complexity", "moderation", "safety_identifier"),
    refusals={
        "background": Refusal("must be opaque: images have no alpha channel", ("auto", "opaque")),
        "frame_count": Refusal("is not supported: images are not animated", (1,)),
        "frame_duration_ms": Refusal("is not supported: images are not animated"),
        "input_fidelity": IMAGE_INPUT,
        "svg": Refusal("is not supported: images are made of pixels"),
    },
)
