"""The exits: the message of a failure for people, and its code for scripts."""

import re
from enum import IntEnum

from safelight.errors import (
    DeadlineExceededError,
    GenerationExistsError,
    InvalidRequestError,
    ModelLoadingError,
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
    "inputs": "PROMPT",
    "prompt": "PROMPT",
    "num_inference_steps": "--steps",
    "image_count": "--count",
    "output.quality": "--quality",
    "preview.interval_steps": "--preview",
    "token": "the token",
}
"""Arguments whose names are not `--` followed by the name of the field or client option."""

_PARAMETERS = re.compile(
    r"\b(num_inference_steps|guidance_scale|negative_prompt|step_reuse|image_count)\b"
)
_ADAPTER = re.compile(r"adapters\[(\d+)\]")
_HTTP_SERVER = re.compile(r"http1\.x server|Expected SETTINGS frame")


def exit_code_of(error: SafelightError) -> ExitCode:
    """Return the code for scripts."""
    return next(code for error_type, code in _CODES if isinstance(error, error_type))


def explain(error: SafelightError) -> str:
    """Return the message for people; it may have several lines."""
    text = _explain(error)
    if isinstance(error, ServiceError) and error.retry_after_s is not None:
        return f"{text} (try again in {error.retry_after_s:.0f} s)"
    return text


def explain_argument(error: ValueError) -> str:
    """Return the message for an argument that the client refuses."""
    return re.sub(r"^\w+(?= must )", lambda match: _argument(match[0]), str(error))


def _explain(error: SafelightError) -> str:
    match error:
        case InvalidRequestError() if error.violations:
            return "\n".join(
                f"{_argument(violation.field)}: {_in_options(violation.description)}"
                for violation in error.violations
            )
        case ModelLoadingError():
            # The service's advice is a header.
            return f"{str(error).partition(';')[0]}; leave out --no-wait-for-model to wait for it"
        case UnauthenticatedError():
            return (
                "the service asks for one of its tokens: set SAFELIGHT_TOKEN, or name a file "
                "that holds it by --token-file"
            )
        case ServiceUnavailableError(reason=None) if _HTTP_SERVER.search(str(error)):
            return (
                "this is an HTTP server, such as the gateway; --target takes the port for gRPC, "
                f"such as 127.0.0.1:50051\n{error}"
            )
        case ServiceUnavailableError(reason=None):
            return f"cannot reach the service; does it run, and is --target right?\n{error}"
        case _:
            return _in_options(str(error))


def _argument(field: str) -> str:
    """Return the argument for a field of the contract."""
    if adapter := _ADAPTER.match(field):
        return f"--adapter number {int(adapter[1]) + 1}"
    name = field.removeprefix("parameters.")
    return _ARGUMENTS.get(name, f"--{name.replace('_', '-')}")


def _in_options(text: str) -> str:
    """Return a text of the service with parameter names replaced by those of options."""
    return _PARAMETERS.sub(lambda match: _argument(match[1]), text)
