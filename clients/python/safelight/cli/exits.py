"""The exits: what a person is told of a failure, and the code that a script gets."""

from enum import IntEnum

from safelight.errors import (
    DeadlineExceededError,
    GenerationExistsError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
    QueueFullError,
    QuotaExceededError,
    SafelightError,
    ServiceError,
    ServiceUnavailableError,
    UnauthenticatedError,
)


class ExitCode(IntEnum):
    """The exit codes of the command line."""

    DONE = 0
    FAILED = 1
    INVALID = 2
    UNAVAILABLE = 3
    TIMED_OUT = 4
    UNAUTHORIZED = 5
    INTERRUPTED = 130


_CODES: tuple[tuple[type[SafelightError], ExitCode], ...] = (
    (InvalidRequestError, ExitCode.INVALID),
    (ModelNotFoundError, ExitCode.INVALID),
    (GenerationExistsError, ExitCode.INVALID),
    (ServiceUnavailableError, ExitCode.UNAVAILABLE),
    (QueueFullError, ExitCode.UNAVAILABLE),
    (QuotaExceededError, ExitCode.UNAVAILABLE),
    (DeadlineExceededError, ExitCode.TIMED_OUT),
    (UnauthenticatedError, ExitCode.UNAUTHORIZED),
    (PermissionDeniedError, ExitCode.UNAUTHORIZED),
    (SafelightError, ExitCode.FAILED),
)

EPILOG = """
Exit codes: 0 done; 1 failed; 2 invalid arguments; 3 the service cannot be
reached or is busy, try again; 4 timed out; 5 the token is missing or refused;
130 interrupted, and cancelled on the service.
""".replace("\n", " ")

_ARGUMENTS = {
    "inputs": "prompt",
    "parameters.num_inference_steps": "steps",
    "image_count": "count",
    "output.quality": "quality",
    "preview.interval_steps": "preview",
}


def exit_code_of(error: SafelightError) -> ExitCode:
    """Return the code for scripts."""
    return next(code for error_type, code in _CODES if isinstance(error, error_type))


def explain(error: SafelightError) -> str:
    """Return the message for people; it may have several lines."""
    if isinstance(error, InvalidRequestError) and error.violations:
        return "\n".join(
            f"{_argument(violation.field)}: {violation.description}"
            for violation in error.violations
        )
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        return f"{error} (try again in {error.retry_after_s:.0f} s)"
    if isinstance(error, ServiceUnavailableError) and error.reason is None:
        return f"cannot reach the service; does it run, and is --target right?\n{error}"
    return str(error)


def _argument(field: str) -> str:
    """Return the name that the command line has for a field of the contract."""
    return _ARGUMENTS.get(field, field.removeprefix("parameters.").replace("_", "-"))
