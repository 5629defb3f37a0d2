"""Errors of the domain, independent of gRPC.

SafelightError
├── UnauthenticatedError     the token is missing or unknown
├── RateLimitedError         the token starts generations too fast
├── TooManyGenerationsError  the token runs too many generations at once
├── TooManyCallsError        the caller has too many open calls
├── RequestTimeoutError      the request has not arrived in time
├── TooManyWatchesError      the caller watches too many generations at once
├── InvalidRequestError      fields break their rules; lists all of them
├── ModelNotFoundError       the model is not served
├── ModelForbiddenError      the token does not allow the model
├── GenerationExistsError    another request uses the generation id
├── GenerationNotFoundError  the generation is neither running nor kept
├── GenerationCancelledError the generation was cancelled
├── TimeLimitError           the generation exceeded the service's time limit
├── DeadlineError            the deadline cannot be met
├── ReaderStalledError       the reader stopped reading
├── QueueFullError           the queue is full
├── OutOfMemoryError         the device has too little memory for the request
├── NonFiniteImageError      an image came out as values that are not finite
├── ModelLoadingError        the model is not in memory yet
├── ModelFailedError         the model, or an adapter, cannot be loaded
├── StoppingError            the service takes no new work
├── DeviceLostError          the device has failed, and the service ends
├── NoEngineError            no engine of the fleet answers
└── InternalError            a fault of the service; carries an id only

`grpc_server/status.py` maps each class to a gRPC status. A message says what was wrong and
what is allowed. It never holds a path, a prompt or the text of an exception.
"""

import traceback
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from safelight_settings import LineLimit

_log = structlog.get_logger()
_faults = LineLimit()


class SafelightError(Exception):
    """Root of all errors that reach a caller; every subclass can be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore the message and the attributes without calling the constructor."""
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(
    kind: type[SafelightError], args: tuple[object, ...], attributes: dict[str, object]
) -> SafelightError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field that breaks its rule; `field` is its path in the contract."""

    field: str
    description: str


_MAX_QUOTED = 64


def quote(text: str) -> str:
    """Quote text from a caller; cut it so that the status stays small enough to be received."""
    return repr(text) if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]!r}..."


class UnauthenticatedError(SafelightError):
    """The token is missing or unknown; the message does not reveal which."""

    def __init__(self) -> None:
        super().__init__("send a token of this service as authorization: Bearer TOKEN")


class InvalidRequestError(SafelightError):
    """Fields break their rules; holds all violations."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class ModelNotFoundError(SafelightError):
    """The model is not served."""

    def __init__(self, model: str, served: Sequence[str]) -> None:
        super().__init__(f"model {quote(model)} is not served; choose one of: {', '.join(served)}")


class ModelForbiddenError(SafelightError):
    """The caller's token does not allow the model, whether it is served or not."""

    def __init__(self, model: str, allowed: Sequence[str]) -> None:
        super().__init__(
            f"this token does not allow model {quote(model)}; choose one of: {', '.join(allowed)}"
        )


class GenerationExistsError(SafelightError):
    """Another request uses the generation id."""

    def __init__(self, generation_id: str) -> None:
        super().__init__(
            f"generation_id {quote(generation_id)} names the generation of another request; "
            "send the same request to join it, or choose another id"
        )


class GenerationNotFoundError(SafelightError):
    """The generation is neither running nor kept."""

    def __init__(self, generation_id: str) -> None:
        super().__init__(
            f"generation_id {quote(generation_id)} names no running or recently ended generation"
        )


class GenerationCancelledError(SafelightError):
    """The generation was cancelled by its id, or lost its last watcher."""

    def __init__(self) -> None:
        super().__init__("the generation was cancelled")


class TimeLimitError(SafelightError):
    """The generation exceeded the service's time limit."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the generation exceeded the time limit of {limit_s:g} s")


class DeadlineError(SafelightError):
    """The generation cannot finish by the deadline, according to the forecast."""

    def __init__(self, left_s: float, needed_s: float) -> None:
        super().__init__(
            f"the deadline is in {left_s:.1f} s, but the images need about {needed_s:.1f} s"
        )


class ReaderStalledError(SafelightError):
    """The caller read nothing from its stream for too long."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"nothing was read from the stream for {limit_s:g} s")


class RetryableError(SafelightError):
    """A temporary error; retry after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitedError(RetryableError):
    """The token has reached its limit of generations per minute."""

    def __init__(self, token: str, per_minute: int, retry_after_s: float) -> None:
        super().__init__(
            f"token {token!r} allows {per_minute} generations a minute; try again later",
            retry_after_s,
        )
        self.token = token


class TooManyGenerationsError(SafelightError):
    """The token already runs as many generations as it may."""

    def __init__(self, token: str, concurrent: int) -> None:
        super().__init__(
            f"token {token!r} allows {concurrent} generations at once; wait for one to end"
        )
        self.token = token


class TooManyCallsError(RetryableError):
    """The caller, a token or an address, has as many open calls as it may."""

    def __init__(self, limit: int, retry_after_s: float = 1.0) -> None:
        super().__init__(
            f"a caller may have {limit} open calls at once; wait for one to end", retry_after_s
        )


class RequestTimeoutError(SafelightError):
    """The request of a call has not arrived in time."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(
            f"the request has not arrived within {limit_s:g} seconds, or too many others of the "
            "same caller were arriving"
        )


class TooManyWatchesError(RetryableError):
    """The caller watches as many ended or watched generations as it may."""

    def __init__(self, limit: int, retry_after_s: float = 1.0) -> None:
        super().__init__(
            f"a caller may watch {limit} ended or already watched generations at once; close a "
            "call, or try again later",
            retry_after_s,
        )


class QueueFullError(RetryableError):
    """The queue is full, by its number of generations or by their device time."""

    def __init__(self, queue_size: int, retry_after_s: float, *, reason: str | None = None) -> None:
        met = reason or f"{queue_size} generations wait already"
        super().__init__(f"{met}; try again later", retry_after_s)


class OutOfMemoryError(SafelightError):
    """The device has too little memory for this request."""

    def __init__(self) -> None:
        super().__init__("the device ran out of memory; ask for a smaller image")


class NonFiniteImageError(SafelightError):
    """The model or its scheduler gave NaN or infinity, so there is no picture."""

    def __init__(self) -> None:
        super().__init__(
            "the image has values that are not finite; try another scheduler, more steps or "
            "a lower guidance_scale"
        )


class ModelLoadingError(RetryableError):
    """The model is being loaded, and the caller declined to wait."""

    def __init__(self, model: str, retry_after_s: float) -> None:
        super().__init__(
            f"model {model!r} is being loaded; try again, or send x-wait-for-model: true",
            retry_after_s,
        )


class ModelFailedError(SafelightError):
    """The model, or an adapter of it, cannot be loaded; the reason is in the service's log."""

    def __init__(self, model: str, adapter: str = "") -> None:
        part = f"adapter {adapter!r} of " if adapter else ""
        super().__init__(f"{part}model {model!r} cannot be loaded; the service's log says why")


class StoppingError(RetryableError):
    """The service is stopping, and takes no new work."""

    def __init__(self, retry_after_s: float = 1.0) -> None:
        super().__init__("the service is stopping", retry_after_s)


class DeviceLostError(RetryableError):
    """The device has failed; the service ends, and its supervisor restarts it."""

    def __init__(self, retry_after_s: float = 10.0) -> None:
        super().__init__("the device has failed and the service restarts", retry_after_s)


class NoEngineError(RetryableError):
    """No engine of the fleet answers; it is being replaced."""

    def __init__(self, retry_after_s: float = 5.0) -> None:
        super().__init__("no engine is available; try again later", retry_after_s)


class InternalError(SafelightError):
    """A fault of the service; the log has the details under the same id."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"internal error, id={error_id}")
        self.error_id = error_id


def report_fault(fault: BaseException) -> InternalError:
    """Log an unexpected exception under a new id, and return an error with that id.

    Logs the exception's type and origin, but not its text, which may hold parts of a prompt. Of
    many from the same place, it logs some.
    """
    error_id = uuid.uuid4().hex[:12]
    frames = traceback.extract_tb(fault.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-6:]]
    admitted = _faults.admit(f"{type(fault).__name__} {where[-1:]}")
    if admitted is not None:
        _log.error(
            "internal_error", id=error_id, error_type=type(fault).__name__, where=where, **admitted
        )
    return InternalError(error_id)
