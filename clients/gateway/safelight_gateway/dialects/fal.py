"""fal: direct results (`run`), and a queue that clients poll."""

from dataclasses import replace

from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects import hf_inference
from safelight_gateway.dialects.dialect import Dialect, DialectRoute, Proxy
from safelight_gateway.dialects.fal_answers import describe_result, describe_status, render_error
from safelight_gateway.edge.call import Call
from safelight_gateway.edge.links import data_urls, link_images
from safelight_gateway.errors import bad_request, invalid_field
from safelight_gateway.fields.parameters import read_request
from safelight_gateway.fields.rules import IMAGE_INPUT, WEBHOOK, is_empty
from safelight_gateway.fields.values import flag
from safelight_gateway.generation.request import ImageRequest, ImageResult
from safelight_gateway.stores.jobs import Job

_OWNER = "fal-ai/"
_ID_HEADER = "x-fal-request-id"
_SYNC_MODE = "sync_mode"
_WEBHOOKS = ("fal_webhook", "webhook_url")
_LIVE = ("stream", "realtime")
"""Ends of an app's path, at which clients expect events instead of one result."""

_LONGEST_HOLD_S = 240.0
"""Maximum wait for a job: Node times out after 300 s without a response."""


async def _run(call: Call) -> Response:
    _refuse_webhooks(call)
    if call.request.query_params.get("_subdomain") == "queue":
        return await _submit_and_hold(call)
    if hf_inference.is_request(call.json()):
        return await hf_inference.generate_bytes(call, _models(call))
    result = await call.state.generator.run(_read(call))
    links = await _link(call, result, as_data=_wants_data(call))
    content = describe_result(result, links, call.json().get("prompt"))
    return JSONResponse(content, headers=hf_inference.result_headers(result))


async def _submit(call: Call) -> Response:
    request = _read(call)
    job = call.state.jobs.start(request, await call.identify())
    try:
        await job.wait_until_begun()
    except BaseException:
        job.cancel()
        raise
    return _render_submission(call, job)


async def _submit_and_hold(call: Call) -> Response:
    """Answer when the job has ended: between polls, the client's process would exit."""
    request = _read(call)
    job = call.state.jobs.start(request, await call.identify())
    try:
        await job.wait_until_ended(_LONGEST_HOLD_S)
        job.raise_for_failure()
    except BaseException:
        job.cancel()
        raise
    return _render_submission(call, job)


async def _get_status(call: Call) -> Response:
    job = await _find_job(call)
    status = 200 if job.has_ended else 202
    return JSONResponse(describe_status(call, job), status, headers={_ID_HEADER: job.id})


async def _get_result(call: Call) -> Response:
    job = await _find_job(call)
    headers = {_ID_HEADER: job.id}
    if not job.has_ended:
        content = {"detail": "Request is still in progress", **describe_status(call, job)}
        return JSONResponse(content, 400, headers=headers)
    job.raise_for_failure()
    assert job.result is not None
    if not job.links:
        job.links = await _link(call, job.result, as_data=job.request.wants_data)
    headers |= hf_inference.result_headers(job.result)
    content = describe_result(job.result, job.links, job.request.prompt)
    return JSONResponse(content, headers=headers)


async def _cancel(call: Call) -> Response:
    job = await _find_job(call)
    if job.has_ended:
        return JSONResponse({"status": "ALREADY_COMPLETED"}, 400)
    job.cancel()
    return JSONResponse({"status": "CANCELLATION_REQUESTED"}, 202)


def _read(call: Call) -> ImageRequest:
    _refuse_webhooks(call)
    request = read_request(call, call.json(), model=_models(call), own_fields=DIALECT.own_fields)
    return replace(request, wants_data=_wants_data(call))


def _refuse_webhooks(call: Call) -> None:
    for name in _WEBHOOKS:
        if call.request.query_params.get(name):
            raise invalid_field(name, WEBHOOK.reason)


def _models(call: Call) -> tuple[str, ...]:
    """Return the ids of the app; some URLs repeat the owner, some omit it."""
    app = call.request.path_params["app"].strip("/")
    while app.startswith(f"{_OWNER}{_OWNER}"):
        app = app.removeprefix(_OWNER)
    bare = app.removeprefix(_OWNER)
    if not bare:
        raise bad_request("the path must name an app", 404)
    if bare.rpartition("/")[2] in _LIVE:
        raise bad_request(f"{bare}: results are not streamed; use run, submit or subscribe", 404)
    return (f"{_OWNER}{bare}", bare)


async def _find_job(call: Call) -> Job:
    await call.identify()  # a token may have been revoked
    return call.state.jobs.find(call.request.path_params["id"], call.context.credential)


def _render_submission(call: Call, job: Job) -> Response:
    return JSONResponse(describe_status(call, job), headers={_ID_HEADER: job.id})


def _wants_data(call: Call) -> bool:
    value = call.json().get(_SYNC_MODE)
    return False if is_empty(value) else flag(_SYNC_MODE, value)


async def _link(call: Call, result: ImageResult, *, as_data: bool) -> tuple[str, ...]:
    return data_urls(result) if as_data else await link_images(call, result)


DIALECT = Dialect(
    name="fal-ai",
    routes=(
        DialectRoute("POST", "/fal-ai/{app:path}", _run),
        DialectRoute("POST", "/fal-queue/{app:path}", _submit),
        # Match the end of the path only: clients vary the beginning.
        DialectRoute("GET", "/{any:path}/requests/{id}/status", _get_status),
        DialectRoute("PUT", "/{any:path}/requests/{id}/cancel", _cancel),
        DialectRoute("GET", "/{any:path}/requests/{id}", _get_result),
    ),
    render_error=render_error,
    parameter_aliases={
        "num_images": "n",
        "image_size": "size",
        "format": "output_format",
        "loras": "adapters",
    },
    own_fields=(_SYNC_MODE,),
    hints=(
        "acceleration",
        "enable_prompt_expansion",
        "enable_safety_checker",
        "expand_prompt",
        "safety_checker_version",
    ),
    refusals={
        "control_image_url": IMAGE_INPUT,
        "controlnet_unions": IMAGE_INPUT,
        "control_loras": IMAGE_INPUT,
        "easycontrols": IMAGE_INPUT,
        "ip_adapter_image_url": IMAGE_INPUT,
    },
    hosts={"fal.run": "/fal-ai", "queue.fal.run": "/fal-queue", "queue.*": "/fal-queue"},
    proxy=Proxy("/fal-proxy", header="x-fal-target-url"),
    deadline_headers=("x-fal-request-timeout",),
    credential_schemes=("Key",),
    id_header=_ID_HEADER,
    is_provider=True,
)
