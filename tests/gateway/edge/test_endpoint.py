"""Endpoints: the parts of an HTTP request that reach the call to the service."""

import json
import threading

import pytest

from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import INPUTS, PROMPT, ROUTES
from tests.gateway.failing_service import ENDLESS, READY, FailingService
from tests.gateway.http_call import open_connection, post


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


def test_deadline_of_a_header_is_that_of_the_call(
    failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    url = f"{failing_gateway.url}/fal-ai/{READY}"
    assert post(url, PROMPT, X_fal_request_timeout="20").status == 200
    assert failing_service.time_remaining is not None
    assert 10 < failing_service.time_remaining < 21
    for wrong in ("soon", "", "0", "-1", "inf", "1e9", "m", "5 m"):
        assert post(url, PROMPT, X_fal_request_timeout=wrong).status == 422


def test_deadline_may_be_a_duration(
    failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    url = f"{failing_gateway.url}/v1/models/safelight/{READY}/predictions"
    for duration, seconds in (("90s", 90), ("1m30s", 90), ("0h2m", 120), ("9.5", 9.5)):
        answer = post(url, {"input": PROMPT}, Prefer="wait", Cancel_after=duration)
        assert answer.status == 201
        assert failing_service.time_remaining is not None
        assert seconds - 8 < failing_service.time_remaining < seconds + 1


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
