"""fal: results at once, a queue, and a proxy."""

import threading

import pytest

from safelight_gateway.dialects import fal
from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import PROMPT
from tests.gateway.failing_service import ENDLESS, READY, FailingService
from tests.gateway.http_call import call, get, post


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
    while (status := get(submitted["status_url"])).status == 202:
        pass
    assert status.json["status"] == "COMPLETED"
    assert status.json["error"] == "the request was cancelled"
    assert status.json["error_type"] == "client_cancelled"
    result = get(submitted["response_url"])
    assert (result.status, result.json["error_type"]) == (499, "client_cancelled")
    assert result.headers["x-fal-error-type"] == "client_cancelled"
    assert call(submitted["cancel_url"], "PUT").status == 400


@pytest.mark.parametrize("parameter", ["fal_webhook", "webhook_url"])
def test_fal_webhook_is_refused(parameter: str, failing_gateway: RunningGateway) -> None:
    url = f"https%3A%2F%2Fexample.org&{parameter}x=1"
    for path in (f"/fal-queue/{READY}", f"/fal-ai/{READY}"):
        answer = post(f"{failing_gateway.url}{path}?{parameter}={url}", PROMPT)
        assert answer.status == 422
        assert answer.json["detail"][0]["loc"] == ["body", parameter]
        assert post(f"{failing_gateway.url}{path}?{parameter}=", PROMPT).status == 200


def test_fal_failure_has_the_type_that_fal_gives_it(failing_gateway: RunningGateway) -> None:
    answer = post(f"{failing_gateway.url}/fal-ai/late", PROMPT)
    assert (answer.status, answer.json["error_type"]) == (504, "request_timeout")
    answer = post(f"{failing_gateway.url}/fal-ai/queue-full", PROMPT)
    assert (answer.status, "error_type" in answer.json) == (429, False)


def test_fal_queue_answers_with_data_in_sync_mode(gateway: RunningGateway) -> None:
    url = f"{gateway.url}/fal-ai/shapes?_subdomain=queue"
    submitted = post(url, {**PROMPT, "sync_mode": True}).json
    [image] = get(submitted["response_url"]).json["images"]
    assert image["url"].startswith("data:image/png;base64,")


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
        answer = post(url, PROMPT, X_fal_target_url=other)
        assert answer.status == 404
        assert "x-fal-target-url must be a URL at fal.run" in answer.json["detail"]
    assert post(url, PROMPT).status == 404


def test_fal_submission_is_not_held_beyond_the_patience_of_node(
    failing_gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fal, "_LONGEST_HOLD_S", 0.05)
    submitted = post(f"{failing_gateway.url}/fal-ai/{ENDLESS}?_subdomain=queue", PROMPT).json
    assert submitted["status"] == "IN_QUEUE"
    assert call(submitted["cancel_url"], "PUT").status == 202
