"""Errors, in the words and places of each dialect."""

import json

import pytest

from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import OF_OPENAI, ROUTES, send, words_of
from tests.gateway.failing_service import BAD_TOKEN, READY
from tests.gateway.http_call import call, post


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
def test_errors_have_the_form_of_the_dialect(
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


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["\ud800", "\0", "\x7f", "a\r\nset-cookie: b=c"])
def test_a_name_that_no_header_can_carry_is_refused(
    route: str, name: str, failing_gateway: RunningGateway
) -> None:
    path, body = ROUTES[route]
    answer = post(failing_gateway.url + path.format(READY), {**body, name: 1}, Prefer="wait")
    assert answer.status == 422
    assert "is not a field" in str(words_of(route, answer))
    assert answer.headers["x-error-message"].isprintable()
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("route", ROUTES)
def test_a_field_that_is_there_twice_is_refused(
    route: str, failing_gateway: RunningGateway
) -> None:
    path, body = ROUTES[route]
    twice = json.dumps(body).replace('"seed": 7', '"seed": 7, "seed": 8').encode()
    answer = post(failing_gateway.url + path.format(READY), twice, Prefer="wait")
    assert answer.status == 422
    assert words_of(route, answer) == "seed: is there twice; send it once"


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("POST", "/v1/images/edits", "openai"),
        ("POST", "/v1/images/variations", "openai"),
        ("POST", "/v1/chat/completions", "openai"),
        ("POST", "/together/v1/chat/completions", "together"),
        ("POST", "/nebius/v1/images/edits", "nebius"),
        ("POST", "/replicate/v1/files", "replicate"),
        ("GET", "/replicate/v1/models/a/b", "replicate"),
    ],
)
def test_an_unknown_route_is_told_in_the_form_of_its_dialect(
    method: str, path: str, route: str, failing_gateway: RunningGateway
) -> None:
    answer = call(failing_gateway.url + path, method)
    assert answer.status == 404
    words = str(words_of(route, answer))
    assert words.startswith(f"no route matches {method} '{path}'; ")
    assert "POST /" in words
    assert answer.headers["x-error-message"] == words


@pytest.mark.parametrize(
    ("method", "path", "allowed", "route"),
    [
        ("GET", "/v1/generate", "POST", "openai"),
        ("DELETE", "/v1/models/shapes", "GET, HEAD", "openai"),
        ("GET", "/replicate/v1/predictions", "POST", "replicate"),
        ("GET", "/hf-inference/models/shapes", "POST", "hf-inference"),
    ],
)
def test_a_wrong_method_is_refused_with_those_that_the_path_takes(
    method: str, path: str, allowed: str, route: str, failing_gateway: RunningGateway
) -> None:
    answer = call(failing_gateway.url + path, method)
    assert answer.status == 405
    assert {*answer.headers["allow"].split(", ")} == {*allowed.split(", ")}
    assert words_of(route, answer) == f"'{path}' takes {answer.headers['allow']}, not {method}"


def test_live_results_of_fal_are_refused(failing_gateway: RunningGateway) -> None:
    answer = post(f"{failing_gateway.url}/fal-ai/{READY}/stream", {"prompt": "x"})
    assert answer.status == 404
    assert "not streamed" in answer.json["detail"]
