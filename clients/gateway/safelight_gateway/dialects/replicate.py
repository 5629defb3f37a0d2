"""Replicate: predictions, awaited with `Prefer: wait` or polled."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects import hf_inference
from safelight_gateway.dialects.dialect import Dialect, DialectRoute, Refusal
from safelight_gateway.edge.call import Call
from safelight_gateway.edge.links import data_urls, link_images
from safelight_gateway.errors import GatewayError, invalid_field
from safelight_gateway.fields.parameters import read_request
from safelight_gateway.fields.rules import ADAPTER, IMAGE_INPUT, WEBHOOK, find_ignored
from safelight_gateway.fields.values import model_id
from safelight_gateway.generation.request import ImageRequest
from safelight_gateway.stores.jobs import Job, JobState

_ROOTS = ("/replicate/v1", "/v1")
"""Root at the gateway, and root at Replicate's own host."""

_WAIT = re.compile(r"\bwait\b(?: *= *(\d{1,5}))?")
_LONGEST_WAIT_S = 60.0
_NEVER_POLLING = ("hf_hub/", "@huggingface/inference", "ai-sdk/")
"""User agents that never poll: the first answer must hold the result."""

_SDKS = ("replicate-python/", "replicate-javascript/")
"""User agents that make files of https: and data: URLs only."""

_TITLES = {401: "Unauthenticated", 404: "Not found", 422: "Invalid input", 429: "Too many requests"}
_STATUSES = {
    JobState.QUEUED: "starting",
    JobState.RUNNING: "processing",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "canceled",
}
_OUTPUT = {"type": "array", "items": {"type": "string", "format": "uri"}}


def render_error(error: GatewayError) -> Response:
    """Render an error in the format of Replicate: problem JSON."""
    content = {
        "title": _TITLES.get(error.status, "Error"),
        "detail": error.message,
        "status": error.status,
        "error": error.message,
    }
    return JSONResponse(content, error.status, media_type="application/problem+json")


async def _predict(call: Call) -> Response:
    if hf_inference.is_request(call.json()):
        return await hf_inference.generate_bytes(call, _models(call))
    request, wait_s = _read(call), _read_wait_s(call)
    job = call.state.jobs.start(request, await call.identify())
    try:
        if wait_s is not None:
            is_limited = not _polls_never(call)
            await job.wait_until_ended(min(wait_s, _LONGEST_WAIT_S) if is_limited else None)
        else:
            await job.wait_until_begun()
        job.raise_for_failure()
    except BaseException:
        job.cancel()
        raise
    prediction = await _render(call, job)
    if not job.has_ended:
        prediction["status"] = "starting"  # on "processing", some clients return at once
    headers = hf_inference.result_headers(job.result) if job.result else None
    return JSONResponse(prediction, 201, headers=headers)


async def _get(call: Call) -> Response:
    return JSONResponse(await _render(call, await _find_job(call)))


async def _cancel(call: Call) -> Response:
    job = await _find_job(call)
    job.cancel()
    await job.wait_until_ended()
    return JSONResponse(await _render(call, job))


async def _describe_version(call: Call) -> Response:
    """Describe the output; clients ask before they run a version."""
    await call.state.models.find(_models(call), call.context)
    return JSONResponse(
        {
            "id": call.request.path_params["version"],
            "created_at": _timestamp(0.0),
            "cog_version": "0.9.0",
            "openapi_schema": {"components": {"schemas": {"Output": _OUTPUT}}},
        }
    )


def _read(call: Call) -> ImageRequest:
    body = call.json()
    fields = body.get("input")
    if not isinstance(fields, dict):
        raise invalid_field("input", "must be an object")
    ignored = find_ignored(body, call.state.dialects, DIALECT.own_fields, has_parameters=False)
    request = read_request(call, fields, model=_models(call))
    data_needed = call.base_url.startswith("http:") and _reads_data(call)
    return replace(
        request,
        ignored_fields=(*request.ignored_fields, *ignored),
        wants_data=data_needed,
    )


def _models(call: Call) -> tuple[str, ...]:
    """Return the possible ids of the model, with and without its version."""
    params = call.request.path_params
    version = params.get("version") or model_id("version", call.json().get("version"))
    if "model" in params:
        model = params["model"]
        return (f"{model}:{version}", model, version) if version else (model,)
    if not version:
        raise invalid_field("version", "must be a string")
    return (version, version.partition(":")[0])


def _read_wait_s(call: Call) -> float | None:
    match = _WAIT.search(call.headers.get("prefer", ""))
    if match is None:
        return None
    return float(match[1]) if match[1] else _LONGEST_WAIT_S


def _polls_never(call: Call) -> bool:
    return any(name in call.headers.get("user-agent", "") for name in _NEVER_POLLING)


def _reads_data(call: Call) -> bool:
    return call.headers.get("user-agent", "").startswith(_SDKS)


async def _find_job(call: Call) -> Job:
    await call.identify()  # a token may have been revoked
    return call.state.jobs.find(call.request.path_params["id"], call.context.credential)


async def _render(call: Call, job: Job) -> dict[str, Any]:
    if job.result is not None and not job.links:
        is_data = job.request.wants_data
        job.links = data_urls(job.result) if is_data else await link_images(call, job.result)
    request = job.request
    url = f"{call.base_url}/replicate/v1/predictions/{job.id}"
    return {
        "id": job.id,
        "model": request.model[0],
        "version": "hidden",
        "input": {"prompt": request.prompt},
        "output": [*job.links] if job.result is not None else None,
        "error": job.error.message if job.error is not None else None,
        "status": _STATUSES[job.state],
        "logs": "",
        "metrics": {"predict_time": round(job.result.compute_s, 3)} if job.result else {},
        "created_at": _timestamp(job.created_at),
        "started_at": _timestamp(job.started_at) if job.started_at else None,
        "completed_at": _timestamp(job.ended_at) if job.ended_at else None,
        "urls": {"get": url, "cancel": f"{url}/cancel"},
    }


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


DIALECT = Dialect(
    name="replicate",
    routes=tuple(
        DialectRoute(method, f"{root}{path}", handler)
        for root in _ROOTS
        for method, path, handler in (
            ("POST", "/models/{model:path}/predictions", _predict),
            ("POST", "/predictions", _predict),
            ("GET", "/predictions/{id}", _get),
            ("POST", "/predictions/{id}/cancel", _cancel),
            ("GET", "/models/{model:path}/versions/{version}", _describe_version),
        )
    ),
    render_error=render_error,
    parameter_aliases={
        "num_outputs": "n",
        "guidance": "guidance_scale",
        "hf_lora": "lora_weights",
        "replicate_weights": "lora_weights",
    },
    own_fields=("input", "version"),
    hints=(
        "disable_safety_checker",
        "go_fast",
        "high_noise_frac",
        "prompt_upsampling",
        "raw",
        "refine",
        "refine_steps",
        "safety_tolerance",
        "webhook_events_filter",
        # Strengths of inputs that are refused; snippets send them with their defaults.
        "finetune_strength",
        "image_prompt_strength",
        "prompt_strength",
    ),
    refusals={
        "apply_watermark": Refusal("is not supported: images carry no watermark"),
        "finetune_id": ADAPTER,
        "image_input": IMAGE_INPUT,
        "redux_image": IMAGE_INPUT,
        "stream": Refusal("is not supported: the output is one file for each image"),
        "webhook": WEBHOOK,
        "webhook_completed": WEBHOOK,
    },
    deadline_headers=("cancel-after",),
    credential_schemes=("Token",),
    is_provider=True,
)
