"""fal: results at once (`run`), or by a queue that the client comes back to."""

import base64
from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from safelight_gateway.call import Call, endpoint
from safelight_gateway.dialects import hf_inference
from safelight_gateway.dialects.files import link_images
from safelight_gateway.errors import GatewayError, bad_request
from safelight_gateway.files import SUFFIXES
from safelight_gateway.gateway import Gateway
from safelight_gateway.generation import ImageRequest, ImageResult
from safelight_gateway.jobs import Job, JobState
from safelight_gateway.parameters import read_request

_OWNER = "fal-ai/"
_ID_HEADER = "x-fal-request-id"
_LONGEST_HOLD_S = 240.0
"""Node gives up on a response after 300 s."""


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes of fal; what follows a submission is known by the end of its path."""

    def route(path: str, handler: Any, method: str) -> Route:
        respond = endpoint(gateway, handler, render_error, id_header=_ID_HEADER)
        return Route(path, respond, methods=[method])

    return [
        route("/fal-ai/{app:path}", _run, "POST"),
        route("/fal-queue/{app:path}", _submit, "POST"),
        route("/{any:path}/requests/{id}/status", _tell_status, "GET"),
        route("/{any:path}/requests/{id}/cancel", _cancel, "PUT"),
        route("/{any:path}/requests/{id}", _tell_result, "GET"),
    ]


def render_error(error: GatewayError) -> Response:
    """Render an error as fal does, with the texts that its clients look for."""
    detail: object = error.message
    if error.violations:
        detail = [
            {
                "loc": ["body", violation.field.removeprefix("parameters.")],
                "msg": violation.description,
                "type": "value_error",
            }
            for violation in error.violations
        ]
    content = {"detail": detail, "error": error.message, "message": error.message}
    return JSONResponse(content, error.status)


async def _run(call: Call) -> Response:
    if call.request.query_params.get("_subdomain") == "queue":
        return await _submit_and_hold(call)
    if hf_inference.is_request(call.json()):
        return await hf_inference.generate_bytes(call, _models(call))
    result = await call.gateway.generator.run(_read(call))
    links = _data_links(result) if _wants_data(call) else link_images(call, result)
    content = _render_result(result, links, call.json().get("prompt"))
    return JSONResponse(content, headers=hf_inference.result_headers(result))


async def _submit(call: Call) -> Response:
    job = call.gateway.jobs.start(_read(call))
    try:
        await job.wait_until_begun()
    except BaseException:
        job.cancel()
        raise
    return _render_submission(call, job)


async def _submit_and_hold(call: Call) -> Response:
    """Answer when it is done: the client would die between its polls (they keep nothing alive)."""
    job = call.gateway.jobs.start(_read(call))
    try:
        await job.wait_until_ended(_LONGEST_HOLD_S)
        job.raise_for_failure()
    except BaseException:
        job.cancel()
        raise
    return _render_submission(call, job)


async def _tell_status(call: Call) -> Response:
    job = _find_job(call)
    status = 200 if job.has_ended else 202
    return JSONResponse(_status(call, job), status, headers={_ID_HEADER: job.id})


async def _tell_result(call: Call) -> Response:
    job = _find_job(call)
    headers = {_ID_HEADER: job.id}
    if not job.has_ended:
        content = {"detail": "Request is still in progress", **_status(call, job)}
        return JSONResponse(content, 400, headers=headers)
    job.raise_for_failure()
    assert job.result is not None
    if not job.links:
        job.links = link_images(call, job.result)
    headers |= hf_inference.result_headers(job.result)
    content = _render_result(job.result, job.links, job.request.prompt)
    return JSONResponse(content, headers=headers)


async def _cancel(call: Call) -> Response:
    job = _find_job(call)
    if job.has_ended:
        return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
    job.cancel()
    return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)


def _read(call: Call) -> ImageRequest:
    body = call.json()
    return read_request(call, body, model=_models(call), own_names=("sync_mode",))


def _models(call: Call) -> tuple[str, ...]:
    """Return the spellings of the app's id: some URLs repeat the owner, some leave it out."""
    app = call.request.path_params["app"].strip("/")
    while app.startswith(f"{_OWNER}{_OWNER}"):
        app = app.removeprefix(_OWNER)
    bare = app.removeprefix(_OWNER)
    if not bare:
        raise bad_request("the path must name an app", 404)
    return (f"{_OWNER}{bare}", bare)


def _find_job(call: Call) -> Job:
    return call.gateway.jobs.find(call.request.path_params["id"], call.context.credential)


def _status(call: Call, job: Job) -> dict[str, Any]:
    status = {JobState.QUEUED: "IN_QUEUE", JobState.RUNNING: "IN_PROGRESS"}
    app = "/".join(job.request.model[0].split("/")[:2])
    url = f"{call.base_url}/fal-queue/{app}/requests/{job.id}"
    content: dict[str, Any] = {
        "status": status.get(job.state, "COMPLETED"),
        "request_id": job.id,
        "response_url": url,
        "status_url": f"{url}/status",
        "cancel_url": f"{url}/cancel",
        "queue_position": job.queue_position,
        "logs": [],
    }
    if job.result is not None:
        content["metrics"] = {"inference_time": round(job.result.compute_s, 3)}
    return content


def _render_submission(call: Call, job: Job) -> Response:
    return JSONResponse(_status(call, job), headers={_ID_HEADER: job.id})


def _render_result(result: ImageResult, links: Sequence[str], prompt: object) -> dict[str, Any]:
    return {
        "images": [
            {
                "url": link,
                "width": image.width,
                "height": image.height,
                "content_type": image.mime_type,
                "file_name": f"{image.image_index}.{SUFFIXES[image.mime_type]}",
                "file_size": len(image.data),
            }
            for image, link in zip(result.images, links, strict=True)
        ],
        "timings": {"inference": round(result.compute_s, 3)},
        "seed": result.seed,
        "has_nsfw_concepts": [image.is_flagged for image in result.images],
        "prompt": prompt,
    }


def _wants_data(call: Call) -> bool:
    return call.json().get("sync_mode") is True


def _data_links(result: ImageResult) -> tuple[str, ...]:
    return tuple(
        f"data:{image.mime_type};base64,{base64.b64encode(image.data).decode()}"
        for image in result.images
    )
