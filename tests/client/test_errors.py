"""The errors: each status becomes the right one, with all that came with it."""

import pickle
import re
from pathlib import Path

import grpc
import pytest
import safelight
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from safelight.errors import ERROR_TYPES

from tests.client.scripted_service import ScriptedService, failure, status

PROTO = Path(__file__).parents[2] / "protos/safelight/v1/text_to_image.proto"
FAILURES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.mark.parametrize("code", FAILURES, ids=lambda code: code.name)
def test_every_status_code_has_an_error(
    scripted: ScriptedService, client: safelight.Client, code: grpc.StatusCode
) -> None:
    scripted.pushback_ms = -1
    scripted.play(status(code, "it went wrong"))
    with pytest.raises(safelight.ServiceError, match=r"^it went wrong$") as raised:
        client.list_models()
    assert type(raised.value) is ERROR_TYPES[code, None]
    assert raised.value.code is code


def test_every_reason_of_the_contract_has_an_error() -> None:
    named = set(re.findall(r"- ([A-Z_]+) \(([A-Z_]+)\)", PROTO.read_text()))
    assert named == {(code.name, reason) for code, reason in ERROR_TYPES if reason}


@pytest.mark.parametrize(
    ("code", "reason"), [key for key in ERROR_TYPES if key[1]], ids=lambda value: str(value)
)
def test_each_reason_gives_its_error(
    scripted: ScriptedService, client: safelight.Client, code: grpc.StatusCode, reason: str
) -> None:
    scripted.pushback_ms = -1
    scripted.play(failure(code, reason))
    with pytest.raises(ERROR_TYPES[code, reason]) as raised:
        client.text_to_image("a red circle")
    assert raised.value.reason == reason


def test_unknown_reason_falls_back_to_the_code(
    scripted: ScriptedService, client: safelight.Client
) -> None:
    info = ErrorInfo(reason="FROM_THE_FUTURE", domain="safelight")
    scripted.play(status(grpc.StatusCode.UNAVAILABLE, "no", info))
    with pytest.raises(safelight.ServiceUnavailableError) as raised:
        client.text_to_image("a red circle")
    assert raised.value.reason == "FROM_THE_FUTURE"


def test_reason_of_another_domain_is_not_believed(
    scripted: ScriptedService, client: safelight.Client
) -> None:
    info = ErrorInfo(reason="QUEUE_FULL", domain="a-proxy.example")
    scripted.play(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", info))
    with pytest.raises(safelight.ResourceExhaustedError) as raised:
        client.text_to_image("a red circle")
    assert type(raised.value) is safelight.ResourceExhaustedError
    assert raised.value.reason is None


@pytest.mark.parametrize("order", [1, -1])
def test_reason_is_found_beside_the_details_of_a_proxy(
    scripted: ScriptedService, client: safelight.Client, order: int
) -> None:
    infos = [
        ErrorInfo(reason="QUEUE_FULL", domain="safelight"),
        ErrorInfo(reason="BUSY", domain="a-proxy.example"),
    ]
    scripted.play(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", *infos[::order]))
    with pytest.raises(safelight.QueueFullError):
        client.text_to_image("a red circle")


def test_invalid_request_lists_every_violation(
    scripted: ScriptedService, client: safelight.Client
) -> None:
    bad_request = BadRequest(
        field_violations=[
            BadRequest.FieldViolation(field="inputs", description="must not be empty"),
            BadRequest.FieldViolation(field="parameters.width", description="must be small"),
        ]
    )
    scripted.play(status(grpc.StatusCode.INVALID_ARGUMENT, "no", bad_request))
    with pytest.raises(safelight.InvalidRequestError) as raised:
        client.text_to_image("")
    assert raised.value.violations == (
        safelight.FieldViolation("inputs", "must not be empty"),
        safelight.FieldViolation("parameters.width", "must be small"),
    )


def test_retry_delay_is_in_seconds(scripted: ScriptedService, client: safelight.Client) -> None:
    retry_info = RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
    info = ErrorInfo(reason="QUEUE_FULL", domain="safelight")
    scripted.play(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "no", info, retry_info))
    with pytest.raises(safelight.QueueFullError) as raised:
        client.text_to_image("a red circle")
    assert raised.value.retry_after_s == 2.5


def test_empty_message_is_replaced_by_the_name_of_the_code(
    scripted: ScriptedService, client: safelight.Client
) -> None:
    scripted.pushback_ms = -1
    scripted.play(status(grpc.StatusCode.ABORTED, ""))
    with pytest.raises(safelight.ServiceError, match=r"^ABORTED$"):
        client.list_models()


def test_grpcs_own_error_is_the_cause(scripted: ScriptedService, client: safelight.Client) -> None:
    scripted.pushback_ms = -1
    scripted.play(status(grpc.StatusCode.ABORTED, "no"))
    with pytest.raises(safelight.ServiceError) as raised:
        client.list_models()
    assert isinstance(raised.value.__cause__, grpc.RpcError)


def test_unreachable_service_is_unavailable() -> None:
    with (
        safelight.Client("localhost:1") as client,
        pytest.raises(safelight.ServiceUnavailableError),
    ):
        client.list_models()


def test_invalid_request_is_a_value_error_and_a_passed_deadline_a_timeout_error() -> None:
    assert issubclass(safelight.InvalidRequestError, ValueError)
    assert issubclass(safelight.DeadlineExceededError, TimeoutError)


@pytest.mark.parametrize("error_type", sorted(set(ERROR_TYPES.values()), key=str))
def test_errors_survive_pickling(error_type: type[safelight.ServiceError]) -> None:
    error = error_type("no", code=grpc.StatusCode.UNAVAILABLE, retry_after_s=1.5)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is error_type
    assert (str(copy), vars(copy)) == ("no", vars(error))
