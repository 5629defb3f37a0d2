"""The errors of the domain, free of gRPC.

SafelightError
├── UnauthenticatedError     no token, or not one that is known
├── RateLimitedError         a token's calls come too fast
├── TooManyGenerationsError  a token's generations are too many at once
├── InvalidRequestError      fields outside their rules, all of them
├── ModelNotFoundError       a model that is not served
├── ModelForbiddenError      a model that the token does not allow
├── GenerationExistsError    a generation id that is in use for another request
├── GenerationNotFoundError  a generation that is neither running nor kept
├── GenerationCancelledError a generation that was cancelled
├── TimeLimitError           a generation that took longer than any may
├── DeadlineError            a deadline that cannot be met
├── ReaderStalledError       a reader that does not read
├── QueueFullError           too many generations wait
├── OutOfMemoryError         the device is too small for the request
├── ModelLoadingError        the model is not in memory yet
├── ModelFailedError         the model cannot be loaded
├── StoppingError            the service takes no new work
├── DeviceLostError          the device has failed for good, and the service ends
└── InternalError            a fault of the service, told by an id only

`grpc_server/status.py` maps each to a gRPC status. A message says what was wrong and
what is allowed; it never holds a path, a prompt or the text of an exception.
"""

import traceback
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

_log = structlog.get_logger()


class SafelightError(Exception):
    """The root of all errors that reach a caller; each survives pickling."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Restore the message and the attributes, whatever the constructor takes."""
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(
    kind: type[SafelightError], args: tuple[object, ...], attributes: dict[str, object]
) -> SafelightError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that breaks its rule; `field` is its path in the contract."""

    field: str
    description: str


_MAX_QUOTED = 64


def quote(text: str) -> str:
    """Quote what a caller sent, cut where a status could grow too large to be received."""
    return repr(text) if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]!r}..."


class UnauthenticatedError(SafelightError):
    """No token, or not one that is known; the caller is not told which."""

    def __init__(self) -> None:
        super().__init__("send a token of this service as authorization: Bearer TOKEN")


class InvalidRequestError(SafelightError):
    """Fields outside their rules, all of them at once."""

    def __init__(self, violations: Sequence[FieldViolation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class ModelNotFoundError(SafelightError):
    """A model that is not served."""

    def __init__(self, model: str, served: Sequence[str]) -> None:
        super().__init__(f"model {quote(model)} is not served; choose one of: {', '.join(served)}")


class ModelForbiddenError(SafelightError):
    """A model that the caller's token does not allow, whether it is served or not."""

    def __init__(self, model: str, allowed: Sequence[str]) -> None:
        super().__init__(
            f"this token does not allow model {quote(model)}; choose one of: {', '.join(allowed)}"
        )


class GenerationExistsError(SafelightError):
    """A generation id that another request has taken."""

    def __init__(self, generation_id: str) -> None:
        super().__init__(
            f"generation_id {quote(generation_id)} names the generation of another request; "
            "send the same request to join it, or choose another id"
        )


class GenerationNotFoundError(SafelightError):
    """A generation that does not run, nor has ended lately."""

    def __init__(self, generation_id: str) -> None:
        super().__init__(f"generation_id {quote(generation_id)} names no generation that is known")


class GenerationCancelledError(SafelightError):
    """A generation that was cancelled by its id, or that nobody watched any more."""

    def __init__(self) -> None:
        super().__init__("the generation was cancelled")


class TimeLimitError(SafelightError):
    """A generation that took longer than the service lets any of them take."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"the generation took longer than {limit_s:g} s, the most that any may")


class DeadlineError(SafelightError):
    """A deadline that is known not to be met."""

    def __init__(self, left_s: float, needed_s: float) -> None:
        super().__init__(
            f"the deadline is in {left_s:.1f} s, and the images would take about {needed_s:.1f} s"
        )


class ReaderStalledError(SafelightError):
    """A reader that took nothing from its stream for too long."""

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"nothing was read from the stream for {limit_s:g} s")


class RetryableError(SafelightError):
    """An error that goes away; `retry_after_s` is when, in seconds, to try again."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimitedError(RetryableError):
    """A token has asked for as many generations within a minute as it may."""

    def __init__(self, token: str, per_minute: int, retry_after_s: float) -> None:
        super().__init__(
            f"token {token!r} allows {per_minute} generations a minute; try again later",
            retry_after_s,
        )
        self.token = token


class TooManyGenerationsError(SafelightError):
    """A token runs as many generations as it may."""

    def __init__(self, token: str, concurrent: int) -> None:
        super().__init__(
            f"token {token!r} allows {concurrent} generations at once; wait for one to end"
        )
        self.token = token


class QueueFullError(RetryableError):
    """As many generations wait as may."""

    def __init__(self, queue_size: int, retry_after_s: float) -> None:
        super().__init__(f"{queue_size} generations wait already; try again later", retry_after_s)


class OutOfMemoryError(SafelightError):
    """The device has too little memory for this request."""

    def __init__(self) -> None:
        super().__init__("the device ran out of memory; ask for a smaller image")


class ModelLoadingError(RetryableError):
    """The model is being loaded and the caller did not want to wait."""

    def __init__(self, model: str, retry_after_s: float) -> None:
        super().__init__(
            f"model {model!r} is being loaded; try again, or send x-wait-for-model: true",
            retry_after_s,
        )


class ModelFailedError(SafelightError):
    """The model cannot be loaded; the service's log says why."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model {model!r} cannot be loaded; the service's log says why")


class StoppingError(RetryableError):
    """The service is stopping and takes no new work."""

    def __init__(self, retry_after_s: float = 1.0) -> None:
        super().__init__("the service is stopping", retry_after_s)


class DeviceLostError(RetryableError):
    """The device has failed for good; the service ends, to be started anew by its supervisor."""

    def __init__(self, retry_after_s: float = 10.0) -> None:
        super().__init__("the device has failed and the service restarts", retry_after_s)


class InternalError(SafelightError):
    """A fault of the service; the log repeats the id beside what happened."""

    def __init__(self, error_id: str) -> None:
        super().__init__(f"internal error, id={error_id}")
        self.error_id = error_id


def report_fault(fault: BaseException) -> InternalError:
    """Log an unexpected exception under an id, and return the error that carries the id.

    The log names the exception's type and its origin, not its text, which may hold parts of a
    prompt.
    """
    error_id = uuid.uuid4().hex[:12]
    frames = traceback.extract_tb(fault.__traceback__)
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-6:]]
    _log.error("internal_error", id=error_id, error_type=type(fault).__name__, where=where)
    return InternalError(error_id)
