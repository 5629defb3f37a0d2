"""Third-party clients when refused: their exceptions and their retries."""

from collections.abc import Mapping

import pytest

from support.running_gateway import RunningGateway
from tests.gateway.failing_service import BAD_TOKEN, ENDLESS, LOADING
from tests.gateway.third_party.client_process import (
    ARE_INSTALLED,
    PARAMETERS,
    Case,
    Outcome,
    start_clients,
)

pytestmark = pytest.mark.skipif(
    not ARE_INSTALLED, reason="run scripts/install-gateway-clients first"
)

SITUATIONS = ("bad token", "bad parameter", "unknown model", "queue full", "loading")
STATUSES = {
    "bad token": 401,
    "bad parameter": 422,
    "unknown model": 404,
    "queue full": 429,
    "loading": 503,
}
REASONS = {
    "bad token": "send a token of this service",
    "bad parameter": "must be a multiple of 8 between 64 and 512, not 97",
    "unknown model": "nobody/nothing' is not served",
    "queue full": "3 generations wait already",
    "loading": "is being loaded",
}
WAITS = 0
"""In place of a number of requests: the client waits until the model is loaded."""

EXPECTED: dict[tuple[str, str], Mapping[str, int]] = {
    (runtime, name): dict(zip(SITUATIONS, counts, strict=True))
    for runtime, name, counts in (
        ("python", "hub_base_url", (1, 1, 1, 1, 1)),
        ("python", "hub_fal-ai", (1, 1, 0, 1, WAITS)),
        ("python", "hub_replicate", (1, 1, 0, 1, WAITS)),
        ("python", "hub_together", (1, 1, 0, 1, WAITS)),
        ("python", "requests_hf_inference", (1, 1, 1, 1, 1)),
        ("python", "fal_run", (1, 1, 1, 10, WAITS)),
        ("python", "fal_subscribe", (1, 1, 1, 10, WAITS)),
        ("python", "replicate_run", (1, 1, 1, 1, WAITS)),
        ("python", "together_b64", (1, 1, 1, 3, WAITS)),
        ("python", "openai_b64", (1, 1, 1, 3, WAITS)),
        ("node", "huggingface_endpoint_url", (1, 1, 1, 1, WAITS)),
        ("node", "huggingface_fal-ai", (1, 1, 0, 1, WAITS)),
        ("node", "huggingface_replicate", (1, 1, 0, 1, WAITS)),
        ("node", "huggingface_together", (1, 1, 0, 1, WAITS)),
        ("node", "fetch_hf_inference", (1, 1, 1, 1, 1)),
        ("node", "fal_proxy_run", (1, 1, 1, 4, WAITS)),
        ("node", "fal_middleware_subscribe", (1, 1, 1, 4, WAITS)),
        ("node", "replicate_run", (1, 1, 1, 6, WAITS)),
        ("node", "together_b64", (1, 1, 1, 3, WAITS)),
        ("node", "openai_b64", (1, 1, 1, 3, WAITS)),
    )
}
"""POST requests that each client sends in each situation."""

CASES = [(*client, situation) for client in EXPECTED for situation in SITUATIONS]
UNTOLD = {
    ("node", "huggingface_together"),
}
"""Clients whose exception text lacks the error message; they hold status and body separately."""


@pytest.fixture(scope="module")
def outcomes(
    gateway: RunningGateway, failing_gateway: RunningGateway
) -> dict[tuple[str, str, str], Outcome]:
    """The outcome of each client in each situation, with one process for each runtime."""

    def case(name: str, situation: str) -> Case:
        match situation:
            case "bad token":
                return Case(name, failing_gateway.url, f"safelight/{LOADING}", BAD_TOKEN)
            case "bad parameter":
                return Case(name, gateway.url, parameters={**PARAMETERS, "width": 97})
            case "unknown model":
                return Case(name, failing_gateway.url, "nobody/nothing")
            case "queue full":
                return Case(name, failing_gateway.url, "safelight/queue-full")
            case _:
                return Case(name, failing_gateway.url, f"safelight/{LOADING}")

    asked = {
        runtime: [which for which in CASES if which[0] == runtime] for runtime in ("python", "node")
    }
    started = {
        runtime: start_clients(
            runtime, [case(*which[1:]) for which in asked[runtime]], is_impatient=True
        )
        for runtime in asked
    }
    return {
        which: outcome
        for runtime, process in started.items()
        for which, outcome in zip(asked[runtime], process.outcomes(), strict=True)
    }


@pytest.mark.parametrize(("runtime", "name", "situation"), CASES)
def test_a_refused_client_gets_the_reason_and_gives_up(
    runtime: str, name: str, situation: str, outcomes: dict[tuple[str, str, str], Outcome]
) -> None:
    outcome = outcomes[runtime, name, situation]
    expected_count = EXPECTED[runtime, name][situation]
    if situation == "loading" and expected_count == WAITS:
        assert outcome.image.size == (16, 16)
        assert outcome.statuses("POST") in ([200], [201])
        return
    assert outcome.exception
    assert outcome.statuses("POST") == [STATUSES[situation]] * expected_count
    if situation == "unknown model" and expected_count == 0:
        assert outcome.statuses("GET") == [404]
    elif (runtime, name) not in UNTOLD:
        assert REASONS[situation] in outcome.exception


def test_cancelled_client_of_fal_asks_for_the_result_once(failing_gateway: RunningGateway) -> None:
    case = Case("fal_cancel", failing_gateway.url, f"safelight/{ENDLESS}")
    [outcome] = start_clients("python", [case], prefix="/seen-by/fal-cancel").outcomes()
    assert "the request was cancelled" in outcome.exception
    assert outcome.statuses("PUT") == [202]
    assert outcome.statuses("GET").count(499) == 1
