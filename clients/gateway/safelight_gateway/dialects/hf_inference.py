"""hf-inference: JSON with `inputs` in, the bytes of an image out."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects.dialect import Dialect, DialectRoute, Refusal
from safelight_gateway.edge.call import Call
from safelight_gateway.errors import GatewayError, invalid_field
from safelight_gateway.fields.parameters import read_request
from safelight_gateway.fields.rules import is_empty
from safelight_gateway.fields.values import model_id
from safelight_gateway.generation.request import ImageResult

_PATHS = (
    "/hf-inference/models/{model:path}",
    "/models/{model:path}",
    "/hf-inference/pipeline/text-to-image/{model:path}",
    "/pipeline/text-to-image/{model:path}",
)
"""Current paths, and those of the former hosts."""

_MIME_TYPES = ("image/png", "image/jpeg", "image/webp")
_JAVASCRIPT_CLIENT = "@huggingface/inference"
_ESTIMATED_LOADING_S = 20.0
_ENVELOPE = ("parameters", "options", "model")
_OPTIONS = ("use_cache", "wait_for_model", "use_gpu")
"""Keys of `options`; `use_gpu` has no effect."""


def render_error(error: GatewayError) -> Response:
    """Render an error in the format of Hugging Face's servers."""
    content: dict[str, object] = {"error": error.message}
    if error.is_loading:
        content["estimated_time"] = error.retry_after_s or _ESTIMATED_LOADING_S
    return JSONResponse(content, error.status)


def is_request(body: Mapping[str, Any]) -> bool:
    """Return whether a body on another provider's route belongs to this dialect.

    Hugging Face's own `fetch` examples send such bodies to every provider.
    """
    return "inputs" in body and "prompt" not in body and "input" not in body


async def generate_bytes(call: Call, model: tuple[str, ...]) -> Response:
    """Generate an image from a body of this dialect; return its bytes.

    Raises:
        GatewayError: the body is invalid, or the generation failed.
    """
    body = call.json()
    options = _table(body, "options")
    _check_options(options)
    # Some clients write parameters next to `inputs`.
    fields = {name: value for name, value in body.items() if name not in _ENVELOPE}
    fields |= _table(body, "parameters")
    if not any(name in fields for name in call.state.dialects.names_of("prompt")):
        fields["inputs"] = ""
    fields.setdefault("output_format", _accepted_format(call))
    if model and body.get("model") is not None:
        fields.setdefault("model", body["model"])
    # By default a loading model is a 503; the JavaScript client would retry that endlessly.
    waits = _JAVASCRIPT_CLIENT in call.headers.get("user-agent", "")
    request = read_request(
        call,
        fields,
        model=model or (model_id("model", body.get("model")),),
        options=options,
        wait_for_model=waits,
        max_count=1,
    )
    result = await call.state.generator.run(request)
    image = result.images[0]
    characters = {"x-compute-characters": str(len(request.prompt))}
    headers = {**result_headers(result), **characters}
    return Response(image.data, media_type=image.mime_type, headers=headers)


def result_headers(result: ImageResult) -> dict[str, str]:
    """Return the response headers with compute time, device type and ignored parameters."""
    return {
        "x-compute-time": f"{result.compute_s:.3f}",
        "x-compute-type": result.compute_type,
        **ignored_header(result.ignored_fields),
    }


def ignored_header(names: Sequence[str]) -> dict[str, str]:
    """Return the response header with the names of fields without effect, if there are any."""
    return {"x-ignored-parameters": ", ".join(names)} if names else {}


async def _generate(call: Call) -> Response:
    return await generate_bytes(call, (call.request.path_params["model"],))


def _accepted_format(call: Call) -> str:
    """Return the first supported type in `Accept`; PNG if there is none."""
    for part in call.headers.get("accept", "").split(","):
        mime_type = part.partition(";")[0].strip().lower()
        if mime_type in _MIME_TYPES:
            return mime_type
    return _MIME_TYPES[0]


def _check_options(options: Mapping[str, Any]) -> None:
    unknown = (name for name in options if name not in _OPTIONS and not is_empty(options[name]))
    if name := next(unknown, None):
        raise invalid_field(f"options.{name[:64]}", f"must be one of {', '.join(_OPTIONS)}")


def _table(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid_field(name, "must be an object")
    return value


DIALECT = Dialect(
    name="hf-inference",
    routes=tuple(DialectRoute("POST", path, _generate) for path in _PATHS),
    render_error=render_error,
    parameter_aliases={
        "inputs": "prompt",
        "target_size": "size",
        "num_images_per_prompt": "n",
        "cfg_scale": "guidance_scale",  # here and below, names that Hub users know from A1111
        "sampler_name": "sampler",
    },
    refusals={
        "output_type": Refusal("is not supported: the answer is an image file", ("pil",)),
        "prompt_2": Refusal("is not supported: all text encoders read the same prompt"),
    },
    is_provider=True,
)
