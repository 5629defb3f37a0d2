"""A dialect of one module works once it is registered: nothing else knows it by name."""

from collections.abc import Iterator

import pytest

from safelight_gateway.dialects.builtin import DIALECTS
from support.running_gateway import RunningGateway, run_gateway
from support.running_service import RunningService
from tests.gateway.dialects import toy
from tests.gateway.failing_service import READY, FailingService
from tests.gateway.http_call import Answer, get, post

DRAWING = {"idea": "a red circle", "strokes": 2, "across": 96, "down": 64}


@pytest.fixture(scope="module")
def toy_gateway(service: RunningService) -> Iterator[RunningGateway]:
    """A gateway to the shared service that speaks the toy dialect, after all others."""
    with run_gateway(service.target, dialects=(*DIALECTS, toy.DIALECT)) as running:
        yield running


@pytest.fixture(scope="module")
def failing_toy_gateway(failing_service: FailingService) -> Iterator[RunningGateway]:
    """The same in front of the service whose models fail."""
    with run_gateway(failing_service.target, dialects=(*DIALECTS, toy.DIALECT)) as running:
        yield running


def draw(gateway: RunningGateway, model: str = READY, **headers: str) -> Answer:
    return post(f"{gateway.url}/toy/draw/{model}", DRAWING, **headers)


def test_its_route_draws_what_its_own_names_ask_for(toy_gateway: RunningGateway) -> None:
    answer = draw(toy_gateway)
    assert (answer.status, answer.headers["x-toy-ignored"]) == (200, "")
    assert answer.image.size == (96, 64)


def test_its_route_comes_before_routes_of_others_that_begin_with_anything(
    toy_gateway: RunningGateway,
) -> None:
    assert get(f"{toy_gateway.url}/toy/requests/5").json == {"toy": "5"}


def test_its_names_hold_on_the_routes_of_others(
    failing_toy_gateway: RunningGateway, failing_service: FailingService
) -> None:
    answer = post(f"{failing_toy_gateway.url}/fal-ai/{READY}", DRAWING)
    assert "x-ignored-parameters" not in answer.headers
    request = failing_service.requests[-1]
    assert (request.inputs, request.parameters.num_inference_steps) == ("a red circle", 2)


def test_wrong_value_is_reported_under_the_name_that_was_sent(toy_gateway: RunningGateway) -> None:
    answer = post(f"{toy_gateway.url}/toy/draw/shapes", {**DRAWING, "strokes": "many"})
    assert (answer.status, answer.json) == (
        422,
        {"trouble": "strokes: must be an integer, not 'many'"},
    )


def test_its_fields_are_ignored_or_refused(failing_toy_gateway: RunningGateway) -> None:
    url = f"{failing_toy_gateway.url}/toy/draw/{READY}"
    assert post(url, {**DRAWING, "mood": "calm"}).headers["x-toy-ignored"] == "mood"
    refused = post(url, {**DRAWING, "photo": "cat.png"})
    assert (refused.status, refused.json["trouble"].partition(":")[0]) == (422, "photo")


def test_it_renders_the_errors_of_its_routes(failing_toy_gateway: RunningGateway) -> None:
    answer = draw(failing_toy_gateway, "queue-full")
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert answer.json == {"trouble": answer.headers["x-error-message"]}


@pytest.mark.parametrize("path", [f"/toy/draw/{READY}", f"/models/{READY}"])
def test_token_of_its_scheme_is_passed_on(
    path: str, failing_toy_gateway: RunningGateway, failing_service: FailingService
) -> None:
    answer = post(failing_toy_gateway.url + path, DRAWING, Authorization="Crayon secret")
    assert answer.status == 200
    assert failing_service.metadata["authorization"] == "Bearer secret"


def test_deadline_of_its_header_is_that_of_the_call(
    failing_toy_gateway: RunningGateway, failing_service: FailingService
) -> None:
    assert draw(failing_toy_gateway, X_toy_patience="20").status == 200
    assert failing_service.time_remaining is not None
    assert 10 < failing_service.time_remaining < 21
    assert "x-toy-patience" in draw(failing_toy_gateway, X_toy_patience="soon").json["trouble"]


@pytest.mark.parametrize("host", ["toy.example", "Toy.Example:8080", "beta.toy.example"])
@pytest.mark.parametrize("path", ["/draw/shapes", "/toy/draw/shapes"])
def test_its_hosts_find_its_routes(host: str, path: str, toy_gateway: RunningGateway) -> None:
    assert post(toy_gateway.url + path, DRAWING, Host=host).image.size == (96, 64)


def test_its_proxy_answers_for_its_hosts_alone(toy_gateway: RunningGateway) -> None:
    url = f"{toy_gateway.url}/toy-proxy"
    drawn = post(url, DRAWING, X_toy_target="https://toy.example/draw/shapes")
    assert drawn.image.size == (96, 64)
    assert post(url, DRAWING, X_toy_target="https://fal.run/draw/shapes").status == 404


def test_its_id_header_is_sent_and_shown_to_browsers(toy_gateway: RunningGateway) -> None:
    answer = get(f"{toy_gateway.url}/toy/requests/5", X_request_id="mine")
    assert answer.headers["x-toy-id"] == "mine"
    assert "x-toy-id" in answer.headers["access-control-expose-headers"]


def test_the_mapping_of_a_model_names_it_last(toy_gateway: RunningGateway) -> None:
    mapping = get(f"{toy_gateway.url}/api/models/shapes").json["inferenceProviderMapping"]
    assert [*mapping][-1] == "toy"


def test_gateway_without_it_knows_nothing_of_it(
    gateway: RunningGateway, failing_gateway: RunningGateway
) -> None:
    assert draw(gateway).status == 404
    assert post(f"{gateway.url}/draw/shapes", DRAWING, Host="toy.example").status == 404
    url = f"{failing_gateway.url}/fal-ai/{READY}"
    assert post(url, {"prompt": "a star"}, Authorization="Crayon secret").status == 401
    refused = post(url, DRAWING)
    assert refused.status == 422
    assert [each["loc"][1] for each in refused.json["detail"]] == sorted(DRAWING)
