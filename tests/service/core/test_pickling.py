"""Errors and events, unchanged by pickling."""

import inspect
import pickle

import pytest

from safelight_service.core import errors, events
from safelight_service.core.errors import FieldViolation, SafelightError
from safelight_service.core.request import (
    ResolvedOutput,
    ResolvedParameters,
    ResolvedPreview,
    ResolvedRequest,
)

ERRORS = [
    errors.UnauthenticatedError(),
    errors.RateLimitedError("token", 2, 3.5),
    errors.TooManyGenerationsError("token", 2),
    errors.TooManyCallsError(2),
    errors.RequestTimeoutError(1.5),
    errors.TooManyWatchesError(3),
    errors.InvalidRequestError([FieldViolation("inputs", "must not be empty")]),
    errors.ModelNotFoundError("a", ["b"]),
    errors.ModelForbiddenError("a", ["b"]),
    errors.GenerationExistsError("id"),
    errors.GenerationNotFoundError("id"),
    errors.GenerationCancelledError(),
    errors.TimeLimitError(9.0),
    errors.DeadlineError(1.0, 2.0),
    errors.ReaderStalledError(3.0),
    errors.QueueFullError(3, 1.5),
    errors.OutOfMemoryError(),
    errors.NonFiniteImageError(),
    errors.ModelLoadingError("a", 2.5),
    errors.ModelFailedError("a"),
    errors.StoppingError(4.5),
    errors.DeviceLostError(5.5),
    errors.NoEngineError(5.5),
    errors.InternalError("0123"),
]
REQUEST = ResolvedRequest(
    "x",
    ResolvedParameters(None, None, 4, 64, 64, "euler", 7),
    1,
    ResolvedOutput("image/png", None),
    ResolvedPreview(1, "image/jpeg", 64),
)
EVENTS = [
    events.Accepted("id", "model", "revision", REQUEST),
    events.Queued(1, None),
    events.ModelLoading("model", 0.5, 2.0),
    events.Restarted(1, 3),
    events.Progress(1, 4, 0, 0.5, 1.5),
    events.Preview(0, 1, "image/jpeg", 8, 8, b"x"),
    events.Image(0, "image/png", 64, 64, 7, False, "00", b"x"),
    events.Completed(
        events.Timings(0, 1, 2, 3, 4, 5, 6),
        4,
        {1: 4},
        events.CacheUse.HIT,
        events.Usage(1, 2, 3, 4),
    ),
]


def test_all_errors_and_events_are_listed_here() -> None:
    bases = {SafelightError, errors.RetryableError}
    kinds = {
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, SafelightError)
    }
    assert {type(error) for error in ERRORS} == kinds - bases
    assert {type(event) for event in EVENTS} == set(events.Event.__args__)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: SafelightError) -> None:
    restored = pickle.loads(pickle.dumps(error))
    assert type(restored) is type(error)
    assert (str(restored), restored.args) == (str(error), error.args)
    assert vars(restored) == vars(error)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_survives_pickling(event: events.Event) -> None:
    assert pickle.loads(pickle.dumps(event)) == event
