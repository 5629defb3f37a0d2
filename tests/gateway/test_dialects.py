"""What each dialect answers, header by header, to plain requests."""

import base64
import io
import json
import threading
from collections.abc import Mapping
from typing import Any

import PIL.Image
import pytest

from safelight_gateway.dialects import fal, replicate
from tests.gateway.failing_service import BAD_TOKEN, ENDLESS, LOADING, READY, FailingService
from tests.gateway.http_call import Answer, call, get, open_connection, post
from tests.gateway.running_gateway import RunningGateway

SIZE = {"width": 96, "height": 64, "num_inference_steps": 2, "seed": 7}
INPUTS = {"inputs": "a red circle", "parameters": SIZE}
PROMPT = {"prompt": "a red circle", **SIZE}
ROUTES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "hf-inference": ("/hf-inference/models/{}", INPUTS),
    "models": ("/models/{}", INPUTS),
    "pipeline": ("/pipeline/text-to-image/{}", INPUTS),
    "hf-inference pipeline": ("/hf-inference/pipeline/text-to-image/{}", INPUTS),
    "fal": ("/fal-ai/{}", PROMPT),
    "fal held": ("/fal-ai/{}?_subdomain=queue", PROMPT),
    "fal queue": ("/fal-queue/{}", PROMPT),
    "replicate": ("/replicate/v1/models/{}/predictions", {"input": PROMPT}),
    "replicate host": ("/v1/models/{}/predictions", {"input": PROMPT}),
    "together": ("/together/v1/images/generations", PROMPT),
    "nebius": ("/nebius/v1/images/generations", PROMPT),
    "openai": ("/v1/images/generations", PROMPT),
    "openai, /v1 twice": ("/v1/v1/images/generations", PROMPT),
}
OF_OPENAI = {"together", "nebius", "openai", "openai, /v1 twice"}


def send(gateway: RunningGateway, route: str, model: str, **headers: str) -> Answer:
    """Ask for a model on a route, as its clients do."""
    path, body = ROUTES[route]
    body = {**body, "model": model} if "{}" not in path else body
    return post(gateway.url + path.format(model), body, Prefer="wait", **headers)


def words_of(route: str, answer: Answer) -> object:
    """Return the text where the route's clients look for it."""
    if route in OF_OPENAI:
        assert set(answer.json) == {"error"}
        return answer.json["error"]["message"]
    if route.startswith("replicate"):
        assert answer.json["status"] == answer.status
        return answer.json["detail"]
    if route.startswith("fal"):
        assert answer.headers["x-fal-request-id"]
        assert answer.json["message"] == answer.json["error"]
    return answer.json["error"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    ("model", "status", "retry_after"),
    [
        ("queue-full", 429, "2"),
        ("out-of-memory", 500, None),
        ("broken", 500, None),
        ("forbidden", 403, None),
        ("late", 504, None),
        ("faulty", 500, None),
        ("nobody/nothing", 404, None),
    ],
)
def test_errors_are_told_in_the_words_and_places_of_the_dialect(
    route: str, model: str, status: int, retry_after: str | None, failing_gateway: RunningGateway
) -> None:
    answer = send(failing_gateway, route, model)
    assert answer.status == status
    assert answer.headers.get("retry-after") == retry_after
    assert answer.headers["x-error-message"] == words_of(route, answer)
    assert answer.headers["x-request-id"]
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("route", ROUTES)
def test_a_token_that_is_not_known_is_401(route: str, failing_gateway: RunningGateway) -> None:
    answer = send(failing_gateway, route, READY, Authorization=f"Bearer {BAD_TOKEN}")
    assert answer.status == 401
    assert "token" in str(words_of(route, answer))


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_no_json_object_is_400(route: str, failing_gateway: RunningGateway) -> None:
    url = failing_gateway.url + ROUTES[route][0].format(READY)
    for body in (b"{", b"[]", b"\xff", b"[" * 60_000):
        assert post(url, body).status == 400
    assert post(url, b"x" * 70_000).status == 413


@pytest.mark.parametrize("route", ROUTES)
def test_all_wrong_fields_are_named(route: str, gateway: RunningGateway) -> None:
    path, body = ROUTES[route]
    wrong = {"width": 97, "num_inference_steps": 0}
    nested = next((name for name in ("parameters", "input") if name in body), None)
    body = {**body, nested: {**body[nested], **wrong}} if nested else {**body, **wrong}
    answer = post(gateway.url + path.format("shapes"), body, Prefer="wait")
    assert answer.status == 422
    words = str(words_of(route, answer))
    assert "width: must be a multiple of 8 between 64 and 512, not 97" in words
    assert "num_inference_steps: must be from 1 to 150, not 0" in words
    if route.startswith("fal"):
        assert [problem["loc"] for problem in answer.json["detail"]] == [
            ["body", "width"],
            ["body", "num_inference_steps"],
        ]
    if route in OF_OPENAI:
        assert answer.json["error"]["param"] == "width"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", "wide"),
        ("seed", 1.5),
        ("guidance_scale", True),
        ("negative_prompt", 3),
        ("image_size", "huge"),
        ("size", "1x"),
        ("output_format", "gif"),
        ("seed", 10**30),
        ("guidance_scale", 10**400),
        ("width", float("inf")),
        ("num_inference_steps", float("nan")),
        ("prompt", "\ud800"),
        ("n", 0.5),
    ],
)
def test_values_of_the_wrong_type_are_422(
    name: str, value: object, failing_gateway: RunningGateway
) -> None:
    answer = post(f"{failing_gateway.url}/fal-ai/{READY}", {"prompt": "x", name: value})
    assert answer.status == 422
    assert answer.json["detail"]


@pytest.mark.parametrize("size", [{"image_size": {"width": 96, "height": 64}}, {"size": "96x64"}])
def test_size_is_read_in_every_form(size: dict[str, Any], gateway: RunningGateway) -> None:
    body = {"prompt": "x", "steps": 1, "guidance": 0.0, "seed": -1, "size": "auto", **size}
    answer = post(f"{gateway.url}/v1/images/generations", body)
    [image] = answer.json["data"]
    assert PIL.Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))).size == (96, 64)


@pytest.mark.parametrize(
    ("accept", "mime_type"),
    [
        ("*/*", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("text/html, image/webp;q=0.9, */*", "image/webp"),
    ],
)
def test_accept_decides_the_type_of_bytes(
    accept: str, mime_type: str, gateway: RunningGateway
) -> None:
    answer = post(f"{gateway.url}/models/shapes", INPUTS, Accept=accept)
    assert answer.headers["content-type"] == mime_type
    assert PIL.Image.MIME[answer.image.format or ""] == mime_type
    assert answer.image.size == (96, 64)
    assert 0 < float(answer.headers["x-compute-time"]) < 60
    assert answer.headers["x-compute-type"] == "cpu"
    assert answer.headers["x-compute-characters"] == str(len("a red circle"))


def test_what_has_no_effect_is_dropped_and_named(
    failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    parameters = {"negative_prompt": "blurry", "seed": 3, "sharpness": 2}
    body = {"inputs": "x", "parameters": parameters}
    answer = post(f"{failing_gateway.url}/models/{READY}", body)
    assert answer.status == 200
    assert answer.headers["x-ignored-parameters"] == "negative_prompt, sharpness"
    sent = failing_service.requests[-1].parameters
    assert (sent.seed, sent.HasField("negative_prompt")) == (3, False)


@pytest.mark.parametrize("scheme", ["Bearer", "Key", "Token", "bearer"])
def test_token_and_headers_are_passed_on(
    scheme: str, failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = post(
        f"{failing_gateway.url}/models/{READY}",
        INPUTS,
        Authorization=f"{scheme} secret",
        X_use_cache="0",
        X_wait_for_model="True",
        Traceparent=trace,
        X_request_id="mine",
    )
    assert answer.headers["x-request-id"] == "mine"
    metadata = failing_service.metadata
    assert metadata["authorization"] == "Bearer secret"
    assert metadata["x-use-cache"] == "false"
    assert metadata["x-wait-for-model"] == "true"
    assert metadata["traceparent"] == trace
    assert metadata["x-request-id"] == "mine"


def test_options_of_the_body_are_passed_on(
    failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    body = {**INPUTS, "options": {"use_cache": False, "wait_for_model": True}}
    answer = post(f"{failing_gateway.url}/models/{LOADING}", body)
    assert (answer.status, answer.headers["x-compute-type"]) == (200, "gpu")
    assert failing_service.metadata["x-use-cache"] == "false"


def test_flag_that_is_no_boolean_is_refused(failing_gateway: RunningGateway) -> None:
    answer = post(f"{failing_gateway.url}/models/{READY}", INPUTS, X_use_cache="perhaps")
    assert answer.status == 422


def test_loading_model_is_503_with_an_estimate(failing_gateway: RunningGateway) -> None:
    answer = post(f"{failing_gateway.url}/models/{LOADING}", INPUTS)
    assert answer.status == 503
    assert answer.json["estimated_time"] == 20.0
    assert answer.headers["retry-after"] == "20"


def test_deadline_of_a_header_is_that_of_the_call(
    failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    url = f"{failing_gateway.url}/fal-ai/{READY}"
    assert post(url, PROMPT, X_fal_request_timeout="20").status == 200
    assert failing_service.time_remaining is not None
    assert 10 < failing_service.time_remaining < 21
    assert post(url, PROMPT, X_fal_request_timeout="soon").status == 422


@pytest.mark.parametrize("route", ["hf-inference", "fal", "fal held", "replicate", "openai"])
def test_client_that_disconnects_cancels_the_generation(
    route: str, failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    failing_service.has_arrived, failing_service.has_left = threading.Event(), threading.Event()
    path, body = ROUTES[route]
    body = {**body, "model": ENDLESS} if route == "openai" else body
    connection = open_connection(failing_gateway.url)
    connection.request(
        "POST", path.format(ENDLESS), json.dumps(body), {"Prefer": "wait", "Connection": "close"}
    )
    assert failing_service.has_arrived.wait(10)
    connection.close()
    assert failing_service.has_left.wait(10)


# fal


def test_fal_job_is_followed_by_its_id_alone(gateway: RunningGateway) -> None:
    submitted = post(f"{gateway.url}/fal-queue/fal-ai/flux/dev", PROMPT).json
    id_ = submitted["request_id"]
    assert submitted["response_url"] == f"{gateway.url}/fal-queue/fal-ai/flux/requests/{id_}"
    while (status := get(f"{submitted['status_url']}?logs=1")).status == 202:
        assert status.json["status"] in ("IN_QUEUE", "IN_PROGRESS")
        assert {"queue_position", "logs"} <= set(status.json)
    assert (status.status, status.json["status"]) == (200, "COMPLETED")
    assert status.json["metrics"]["inference_time"] > 0
    for prefix in ("/fal-ai/fal-ai/fal-ai/flux", "/fal-queue", "/any/thing"):
        result = get(f"{gateway.url}{prefix}/requests/{id_}").json
        assert result["seed"] == 7
        [image] = result["images"]
        assert (image["width"], image["height"]) == (96, 64)
    fetched = get(image["url"])
    assert fetched.headers["content-type"] == image["content_type"] == "image/png"
    assert len(fetched.body) == image["file_size"]
    assert call(submitted["cancel_url"], "PUT").json == {"status": "ALREADY_COMPLETED"}


def test_fal_job_is_that_of_its_token(failing_gateway: RunningGateway) -> None:
    url = f"{failing_gateway.url}/fal-queue/{READY}"
    submitted = post(url, PROMPT, Authorization="Key mine").json
    assert get(submitted["status_url"], Authorization="Key other").status == 404
    assert get(submitted["status_url"], Authorization="Bearer mine").status in (200, 202)


def test_fal_job_is_cancelled(
    failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    failing_service.has_left = threading.Event()
    submitted = post(f"{failing_gateway.url}/fal-queue/{ENDLESS}", PROMPT).json
    assert submitted["status"] == "IN_QUEUE"
    assert get(submitted["response_url"]).status == 400
    cancelled = call(submitted["cancel_url"], "PUT")
    assert (cancelled.status, cancelled.json) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert failing_service.has_left.wait(10)


def test_fal_submission_for_huggingface_js_is_held_until_it_is_done(
    gateway: RunningGateway,
) -> None:
    submitted = post(f"{gateway.url}/fal-ai/shapes?_subdomain=queue", PROMPT).json
    assert submitted["status"] == "COMPLETED"
    assert get(f"{submitted['response_url']}?_subdomain=queue").status == 200


def test_fal_image_is_a_data_url_in_sync_mode(gateway: RunningGateway) -> None:
    result = post(f"{gateway.url}/fal-ai/shapes", {**PROMPT, "sync_mode": True}).json
    assert result["images"][0]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("path", "host", "is_queue"),
    [
        ("/fal-ai/flux/dev", "fal.run", False),
        ("/fal-ai/flux/dev", "queue.fal.run", True),
        ("/fal-ai/fal-ai/flux/dev", "queue.127.0.0.1", True),
        ("/fal-ai/fal-ai/flux/dev", "router.huggingface.co", False),
    ],
)
def test_fal_host_names_work_as_well(
    path: str, host: str, is_queue: bool, gateway: RunningGateway
) -> None:
    answer = post(gateway.url + path, PROMPT, Host=host)
    assert answer.status == 200
    assert ("request_id" in answer.json) == is_queue
    link = answer.json["response_url"] if is_queue else answer.json["images"][0]["url"]
    assert link.startswith(f"http://{host}/")


def test_fal_proxy_goes_where_its_header_says(gateway: RunningGateway) -> None:
    url = f"{gateway.url}/fal-proxy"
    target = "https://queue.fal.run/fal-ai/flux/dev"
    submitted = post(url, PROMPT, X_fal_target_url=target).json
    status = get(url, X_fal_target_url=f"{target}/requests/{submitted['request_id']}/status?logs=1")
    assert status.json["request_id"] == submitted["request_id"]
    for other in ("https://example.org/fal-ai/flux", "https://[fal.run/x", "https://fal.run.a/x"):
        assert post(url, PROMPT, X_fal_target_url=other).status == 404
    assert post(url, PROMPT).status == 404


def test_fal_submission_is_not_held_beyond_the_patience_of_node(
    failing_gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fal, "_LONGEST_HOLD_S", 0.05)
    submitted = post(f"{failing_gateway.url}/fal-ai/{ENDLESS}?_subdomain=queue", PROMPT).json
    assert submitted["status"] == "IN_QUEUE"
    assert call(submitted["cancel_url"], "PUT").status == 202


# replicate


def test_replicate_prediction_is_polled_for(gateway: RunningGateway) -> None:
    url = f"{gateway.url}/replicate/v1/models/safelight/shapes/predictions"
    answer = post(url, {"input": PROMPT})
    assert (answer.status, answer.json["status"]) == (201, "starting")
    assert answer.json["output"] is None
    while (told := get(answer.json["urls"]["get"]).json)["status"] in ("starting", "processing"):
        assert told["output"] is None
    assert told["status"] == "succeeded"
    [link] = told["output"]
    assert get(link).image.size == (96, 64)
    assert {"id", "model", "version", "created_at", "completed_at"} <= set(told)


def test_replicate_wait_ends_with_starting(failing_gateway: RunningGateway) -> None:
    url = f"{failing_gateway.url}/v1/models/safelight/{ENDLESS}/predictions"
    answer = post(url, {"input": PROMPT}, Prefer="wait=1")
    assert (answer.status, answer.json["status"], answer.json["output"]) == (201, "starting", None)
    cancelled = call(answer.json["urls"]["cancel"], "POST")
    assert (cancelled.status, cancelled.json["status"]) == (200, "canceled")


@pytest.mark.parametrize("agent", ["unknown/None; hf_hub/2.4.0", "@huggingface/inference/4.13"])
def test_replicate_holds_clients_that_never_poll(
    agent: str, failing_gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicate, "_LONGEST_WAIT_S", 0.0)
    url = f"{failing_gateway.url}/v1/models/safelight/{READY}/predictions"
    for user_agent, status in ((agent, "succeeded"), ("replicate/1.0", "starting")):
        answer = post(url, {"input": PROMPT}, Prefer="wait", User_Agent=user_agent)
        assert answer.json["status"] == status


@pytest.mark.parametrize("version", ["safelight/shapes", "safelight/shapes:0123"])
def test_replicate_version_can_name_the_model(version: str, gateway: RunningGateway) -> None:
    body = {"version": version, "input": PROMPT}
    answer = post(f"{gateway.url}/replicate/v1/predictions", body, Prefer="wait")
    assert answer.json["status"] == "succeeded"


# OpenAI


def test_openai_answers_hold_a_link_or_bytes_and_never_both(gateway: RunningGateway) -> None:
    body = {**PROMPT, "model": "black-forest-labs/flux-dev", "n": 2}
    linked = post(f"{gateway.url}/together/v1/images/generations", body).json
    assert [set(image) for image in linked["data"]] == [{"index", "type", "url"}] * 2
    assert linked["model"] == "black-forest-labs/flux-dev"
    inline = post(f"{gateway.url}/nebius/v1/images/generations", body).json
    assert [set(image) for image in inline["data"]] == [{"index", "type", "b64_json"}] * 2


def test_host_of_together_answers_with_links(gateway: RunningGateway) -> None:
    answer = post(f"{gateway.url}/v1/images/generations", PROMPT, Host="api.together.xyz").json
    assert answer["data"][0]["url"].startswith("http://api.together.xyz/files/")


def test_openai_clients_do_not_repeat_what_fails_for_good(failing_gateway: RunningGateway) -> None:
    answer = send(failing_gateway, "openai", "faulty")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json["error"]["type"] == "server_error"
    assert "x-should-retry" not in send(failing_gateway, "openai", "queue-full").headers


# the Hub


def test_mapping_names_every_provider_hf_inference_first(gateway: RunningGateway) -> None:
    id_ = "black-forest-labs/FLUX.1-dev"
    url = f"{gateway.url}/api/models/{id_}?expand=inferenceProviderMapping"
    mapping = get(url).json["inferenceProviderMapping"]
    assert list(mapping) == ["hf-inference", "fal-ai", "nebius", "replicate", "together"]
    assert {entry["task"] for entry in mapping.values()} == {"text-to-image"}


def test_mapping_of_an_unknown_model_is_the_error_of_the_hub(gateway: RunningGateway) -> None:
    answer = get(f"{gateway.url}/api/models/nobody/nothing")
    assert answer.status == 404
    assert answer.headers["x-error-code"] == "RepoNotFound"


def test_mapping_needs_no_token_that_the_service_knows(failing_gateway: RunningGateway) -> None:
    url = f"{failing_gateway.url}/api/models/safelight/{READY}"
    for header in (f"Bearer {BAD_TOKEN}", "nonsense"):
        assert get(url, Authorization=header).status == 200


def test_tasks_name_the_default_model_first(gateway: RunningGateway) -> None:
    task = get(f"{gateway.url}/api/tasks").json["text-to-image"]
    assert task == {"models": [{"id": "shapes"}], "widgetModels": ["shapes"]}
    assert get(f"{gateway.url}/api/agent-harnesses").json == {
        "standardEnvVars": [],
        "harnesses": {},
    }


# all


def test_preflight_lets_any_origin_send_what_it_asks_to(gateway: RunningGateway) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Headers": "x-a, x-b"}
    answer = call(f"{gateway.url}/fal-ai/shapes", "OPTIONS", headers=headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "x-a, x-b"
    assert "PUT" in answer.headers["access-control-allow-methods"]


def test_unknown_routes_and_methods_are_told(gateway: RunningGateway) -> None:
    for method, path, status in (
        ("GET", "/nowhere", 404),
        ("GET", "/models/shapes", 405),
        ("GET", "/files/nothing.png", 404),
        ("GET", "/fal-queue/shapes/requests/nothing", 404),
        ("POST", "/fal-ai/fal-ai/", 404),
    ):
        answer = call(gateway.url + path, method, {} if method == "POST" else None)
        assert answer.status == status
        assert answer.json["error"]


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"X-Forwarded-Proto": "https", "X-Forwarded-Host": "a.example"}, "https://a.example"),
        ({"X-Forwarded-Prefix": "/images/"}, None),
        ({"X-Forwarded-Host": "evil.example/x?"}, "http://localhost"),
    ],
)
def test_links_are_those_that_the_caller_can_reach(
    headers: dict[str, str], base: str | None, gateway: RunningGateway
) -> None:
    answer = call(f"{gateway.url}/fal-ai/shapes", "POST", PROMPT, headers)
    url = answer.json["images"][0]["url"]
    assert url.startswith(f"{base or gateway.url + '/images'}/files/")


def test_requests_of_unset_model_get_the_default_one(gateway: RunningGateway) -> None:
    answer = post(f"{gateway.url}/nebius/v1/images/generations", INPUTS)
    assert answer.image.size == (96, 64)
