"""The edge: prefixes, links and origins."""

import pytest

from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import PROMPT
from tests.gateway.http_call import call


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
