"""Each domain error has one row in the table, and a rich status."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.rpc import error_details_pb2, status_pb2

from safelight_service.core import errors
from safelight_service.grpc_server import status

PROTO = Path("protos/safelight/v1/text_to_image.proto").read_text()

EXAMPLES = [
    errors.UnauthenticatedError(),
    errors.RateLimitedError("billing", per_minute=60, retry_after_s=2.5),
    errors.TooManyGenerationsError("billing", concurrent=4),
    errors.TooManyCallsError(4),
    errors.RequestTimeoutError(1.0),
    errors.TooManyWatchesError(4),
    errors.InvalidRequestError(
        [errors.FieldViolation("inputs", "a"), errors.FieldViolation("parameters.width", "b")]
    ),
    errors.ModelNotFoundError("x", ["shapes"]),
    errors.ModelForbiddenError("x", ["shapes"]),
    errors.GenerationExistsError("x"),
    errors.GenerationNotFoundError("x"),
    errors.GenerationCancelledError(),
    errors.TimeLimitError(1.0),
    errors.DeadlineError(1.0, 2.0),
    errors.ReaderStalledError(1.0),
    errors.QueueFullError(4, retry_after_s=2.5),
    errors.OutOfMemoryError(),
    errors.NonFiniteImageError(),
    errors.ModelLoadingError("x", retry_after_s=3),
    errors.ModelFailedError("x"),
    errors.StoppingError(),
    errors.DeviceLostError(),
    errors.NoEngineError(),
    errors.InternalError("0123"),
]


def leaves(error: type[errors.SafelightError]) -> Iterator[type[errors.SafelightError]]:
    below = error.__subclasses__()
    if not below:
        yield error
    for child in below:
        yield from leaves(child)


def rich_status(error: errors.SafelightError) -> status_pb2.Status:
    trailing = dict(status.to_status(error).trailing_metadata)
    return status_pb2.Status.FromString(trailing["grpc-status-details-bin"])


def test_the_table_has_every_error_of_the_tree() -> None:
    assert set(status.TABLE) == set(leaves(errors.SafelightError))
    assert {type(error) for error in EXAMPLES} == set(status.TABLE)


def test_reasons_are_unique() -> None:
    reasons = [row.reason for row in status.TABLE.values()]
    assert len(set(reasons)) == len(reasons)


def test_the_contract_names_every_reason() -> None:
    for row in status.TABLE.values():
        assert row.reason in PROTO


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_a_status_carries_its_message_and_reason(error: errors.SafelightError) -> None:
    rich = rich_status(error)
    info = error_details_pb2.ErrorInfo()
    assert rich.details[0].Unpack(info)
    row = status.TABLE[type(error)]
    assert (rich.code, rich.message) == (row.code, str(error))
    assert (info.reason, info.domain) == (row.reason, "safelight")


def test_a_bad_request_names_every_field() -> None:
    bad_request = error_details_pb2.BadRequest()
    violations = [errors.FieldViolation("inputs", "a"), errors.FieldViolation("model", "b")]
    rich = rich_status(errors.InvalidRequestError(violations))
    assert rich.details[1].Unpack(bad_request)
    assert [v.field for v in bad_request.field_violations] == ["inputs", "model"]


@pytest.mark.parametrize(
    "error",
    [errors.RateLimitedError("billing", 60, 1), errors.TooManyGenerationsError("billing", 4)],
)
def test_a_limit_of_a_token_names_the_token(error: errors.SafelightError) -> None:
    quota = error_details_pb2.QuotaFailure()
    assert rich_status(error).details[1].Unpack(quota)
    assert [(v.subject, v.description) for v in quota.violations] == [("token:billing", str(error))]


def test_a_retryable_error_says_when_to_come_back() -> None:
    retry = error_details_pb2.RetryInfo()
    assert rich_status(errors.QueueFullError(4, 2.5)).details[1].Unpack(retry)
    assert retry.retry_delay.ToNanoseconds() == 2_500_000_000
