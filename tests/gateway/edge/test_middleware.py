"""The edge: prefixes, links and origins."""

import pytest

from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import PROMPT
from tests.gateway.failing_service import READY, FailingService
from tests.gateway.http_call import call


def test_preflight_lets_any_origin_send_what_it_asks_to(gateway: RunningGateway) -> None:
    headers = {"Origin": "https://example.org", "Access-Control-Request-Headers": "x-a, x-b"}
    answer = call(f"{gateway.url}/fal-ai/shapes", "OPTIONS", headers=headers)
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-headers"] == "x-a, x-b"
    assert "PUT" in answer.headers["access-control-allow-methods"]


def test_unknown_routes_and_methods_are_reported(gateway: RunningGateway) -> None:
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


@pytest.mark.parametrize(
    ("headers", "base", "address"),
    [
        # The proxy of the tests is trusted; each proxy appends its values.
        (
            {"X-Forwarded-For": "198.51.100.1, 203.0.113.7", "X-Forwarded-Host": "evil, a.example"},
            "http://a.example",
            "203.0.113.7",
        ),
        (
            {"X-Forwarded-For": "203.0.113.7, 127.0.0.1", "X-Forwarded-Host": "a.example, inner"},
            "http://a.example",
            "203.0.113.7",
        ),
        ({"Forwarded": "for=198.51.100.1;host=evil"}, None, "127.0.0.1"),
    ],
)
def test_the_outermost_trusted_proxy_states_host_and_address(
    headers: dict[str, str],
    base: str | None,
    address: str,
    failing_gateway: RunningGateway,
    failing_service: FailingService,
) -> None:
    answer = call(f"{failing_gateway.url}/fal-ai/{READY}", "POST", PROMPT, headers)
    url = answer.json["images"][0]["url"]
    assert url.startswith(f"{base or failing_gateway.url}/files/")
    assert failing_service.metadata["x-forwarded-for"] == address


def test_a_stranger_states_nothing(
    guarded_gateway: RunningGateway, failing_service: FailingService
) -> None:
    for headers in (
        {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
        {"X-Forwarded-Host": "queue.fal.run", "X-Forwarded-Prefix": "/evil"},
        {"X-Forwarded-For": "198.51.100.1", "Forwarded": "for=198.51.100.1;host=evil.example"},
    ):
        answer = call(f"{guarded_gateway.url}/fal-ai/{READY}", "POST", PROMPT, headers)
        assert answer.json["images"][0]["url"].startswith(f"{guarded_gateway.url}/files/")
        assert failing_service.metadata["x-forwarded-for"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/healthz"),
        ("GET", "/v1/models"),
        ("HEAD", "/healthz"),
        ("HEAD", "/files/nothing.png"),
        ("OPTIONS", "/fal-ai/shapes"),
        ("GET", "/nowhere"),
        ("DELETE", "/fal-ai/shapes"),
        ("POST", "/v1/generate"),
        ("TRACE", "/"),
    ],
)
def test_no_answer_lets_a_browser_guess_its_type(
    method: str, path: str, failing_gateway: RunningGateway
) -> None:
    answer = call(f"{failing_gateway.url}{path}", method)
    assert answer.headers["x-content-type-options"] == "nosniff"


HEADERS = (
    "Accept",
    "Access-Control-Request-Headers",
    "Authorization",
    "Baggage",
    "Content-Type",
    "Host",
    "Last-Event-ID",
    "Prefer",
    "Traceparent",
    "Tracestate",
    "User-Agent",
    "X-Fal-Request-Timeout",
    "X-Fal-Target-Url",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Prefix",
    "X-Forwarded-Proto",
    "X-Request-Id",
    "X-Use-Cache",
    "X-Wait-For-Model",
)


@pytest.mark.parametrize(
    "value", ["\u00e9", "\u00b2", "/\u00e9", "a\tb", "%e9%00", "," * 3_000, ""]
)
def test_no_value_of_a_header_is_a_fault(value: str, failing_gateway: RunningGateway) -> None:
    for header in HEADERS:
        answer = call(f"{failing_gateway.url}/fal-ai/{READY}", "POST", PROMPT, {header: value})
        assert answer.status < 500, header
        assert call(failing_gateway.url, "OPTIONS", None, {header: value}).status == 204


@pytest.mark.parametrize("id_", ["\u00e9", "a\u00b2", "a b", "a" * 129])
def test_request_id_that_cannot_be_passed_on_is_replaced(
    id_: str, failing_gateway: RunningGateway
) -> None:
    headers = {"X-Request-Id": id_}
    answer = call(f"{failing_gateway.url}/fal-ai/{READY}", "POST", PROMPT, headers)
    assert answer.status == 200
    assert len(answer.headers["x-request-id"]) == 36
