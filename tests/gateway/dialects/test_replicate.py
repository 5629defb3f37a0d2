"""Replicate: predictions, waited or polled for."""

import pytest

from safelight_gateway.dialects import replicate
from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import PROMPT
from tests.gateway.failing_service import ENDLESS, READY
from tests.gateway.http_call import call, get, post


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


@pytest.mark.parametrize(
    "agent",
    [
        "unknown/None; hf_hub/2.4.0",
        "@huggingface/inference/4.13",
        "ai/6.0.326 ai-sdk/replicate/2.0",
    ],
)
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


@pytest.mark.parametrize(
    "agent", ["replicate-python/1.0.7", "replicate-javascript/1.4.0", "curl/8"]
)
def test_replicate_sdks_get_data_over_plain_http(agent: str, gateway: RunningGateway) -> None:
    url = f"{gateway.url}/replicate/v1/models/safelight/shapes/predictions"
    for headers, scheme in (
        ({}, "http:" if agent.startswith("curl") else "data:"),
        ({"X_Forwarded_Proto": "https"}, "https:"),
    ):
        answer = post(url, {"input": PROMPT}, Prefer="wait", User_Agent=agent, **headers)
        assert answer.json["output"][0].startswith(scheme)


@pytest.mark.parametrize("name", ["webhook", "webhook_completed", "width", "no_such_field"])
def test_replicate_fields_next_to_the_input_are_refused(
    name: str, failing_gateway: RunningGateway
) -> None:
    url = f"{failing_gateway.url}/v1/models/safelight/{READY}/predictions"
    answer = post(url, {"input": PROMPT, name: "https://example.org"}, Prefer="wait")
    assert answer.status == 422
    assert answer.json["detail"].startswith(f"{name}: is ")
    assert post(url, {"input": PROMPT, name: None}, Prefer="wait").status == 201
