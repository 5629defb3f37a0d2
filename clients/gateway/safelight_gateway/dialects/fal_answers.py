"""fal's answers: statuses, results and errors in its format."""

from collections.abc import Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from safelight_gateway.edge.call import Call
from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.request import ImageResult
from safelight_gateway.stores.files import SUFFIXES
from safelight_gateway.stores.jobs import Job, JobState

_CANCELLED, _CANCELLED_STATUS = "client_cancelled", 499
_ERROR_TYPES = {
    500: "internal_error",
    502: "runner_incomplete_response",
    503: "runner_scheduling_failure",
    504: "request_timeout",
}
"""fal's names of causes, by HTTP status."""


def render_error(error: GatewayError) -> Response:
    """Render an error in the format of fal, with the fields that its clients read."""
    detail: object = error.message
    if error.violations:
        detail = [
            {
                "loc": ["body", violation.field],
                "msg": violation.description,
                "type": "value_error",
            }
            for violation in error.violations
        ]
    content = {"detail": detail, "error": error.message, "message": error.message}
    error_type = _error_type(error)
    if error_type is None:
        return JSONResponse(content, error.status)
    # fal's client asks again and again after a 409.
    status = _CANCELLED_STATUS if error_type == _CANCELLED else error.status
    content["error_type"] = error_type
    return JSONResponse(content, status, headers={"x-fal-error-type": error_type})


def _error_type(error: GatewayError) -> str | None:
    """Return fal's name for the cause; None for invalid requests, which have none."""
    if error.reason == "CANCELLED":
        return _CANCELLED
    return "bad_request" if error.status == 400 else _ERROR_TYPES.get(error.status)


def describe_status(call: Call, job: Job) -> dict[str, Any]:
    """Return a job's status in the format of fal's queue."""
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
    if job.error is not None:
        content["error"] = job.error.message
        content["error_type"] = _error_type(job.error) or "bad_request"
    if job.result is not None:
        content["metrics"] = {"inference_time": round(job.result.compute_s, 3)}
    return content


def describe_result(result: ImageResult, links: Sequence[str], prompt: object) -> dict[str, Any]:
    """Return a result in the format of fal's apps.

    Args:
        result: The result.
        links: URL of each image.
        prompt: The prompt, as the caller wrote it.
    """
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
