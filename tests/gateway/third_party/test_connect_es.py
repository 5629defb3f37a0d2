"""connect-es, unmodified, against the gateway."""

import pytest

from support.running_gateway import RunningGateway
from support.running_service import RunningService
from tests.gateway.leaving import has_stopped
from tests.gateway.third_party.connect_es import (
    IS_INSTALLED,
    PROTOCOLS,
    ConnectCall,
    ConnectOutcome,
    run_connect_es,
)

pytestmark = pytest.mark.skipif(
    not IS_INSTALLED, reason="run scripts/install-gateway-clients first"
)

SMALL = {"numInferenceSteps": 2, "width": 96, "height": 64, "seed": "5"}
LONG = {"numInferenceSteps": 150, "width": 512, "height": 512}
Outcomes = dict[tuple[str, str], ConnectOutcome]


def left_id(protocol: str) -> str:
    return f"connect-es-{PROTOCOLS.index(protocol)}"


@pytest.fixture(scope="module")
def outcomes(gateway: RunningGateway) -> Outcomes:
    """The outcome of each situation by each protocol, all from one process."""
    calls = {
        (protocol, situation): call
        for protocol in PROTOCOLS
        for situation, call in {
            "drawn": ConnectCall(protocol, gateway.url, {"inputs": "a star", "parameters": SMALL}),
            "refused": ConnectCall(protocol, gateway.url, {"parameters": {"width": 7}}),
            "late": ConnectCall(
                protocol, gateway.url, {"inputs": "a star", "parameters": LONG}, timeoutMs=200
            ),
            "left": ConnectCall(
                protocol,
                gateway.url,
                {"inputs": "a star", "parameters": LONG, "generationId": left_id(protocol)},
                leavesAt="progress",
            ),
        }.items()
    }
    return dict(zip(calls, run_connect_es([*calls.values()]), strict=True))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_gets_events_and_the_image(outcomes: Outcomes, protocol: str) -> None:
    drawn = outcomes[protocol, "drawn"]
    assert (drawn.code, drawn.models) == ("", ["shapes"])
    assert drawn.events[0] == "accepted"
    assert drawn.events[-3:] == ["image", "chunk", "completed"]
    assert drawn.sizeBytes > 100
    assert drawn.cache == "bypass"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_finds_the_details_of_errors(outcomes: Outcomes, protocol: str) -> None:
    refused = outcomes[protocol, "refused"]
    assert (refused.code, refused.reasons) == ("InvalidArgument", ["INVALID_REQUEST"])
    assert {*refused.fields} == {"inputs", "parameters.width"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_its_deadlines_hold(outcomes: Outcomes, protocol: str) -> None:
    assert outcomes[protocol, "late"].code == "DeadlineExceeded"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_leaving_stops_the_generation(
    outcomes: Outcomes, service: RunningService, protocol: str
) -> None:
    left = outcomes[protocol, "left"]
    assert (left.code, left.events[-1]) == ("Canceled", "progress")
    assert has_stopped(service.target, left_id(protocol))
