"""Tokens: who may call, and what each caller may do, from a TOML file of digests."""

import hashlib
import hmac
import time
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from pathlib import Path

from pydantic import Field, ValidationError

from safelight_service.auth.reloading import Reloaded
from safelight_service.settings import ConfigurationError
from safelight_settings import Table, TomlFile, describe_problems

_LOOK_EVERY_S = 1.0


class Caller(Table):
    """Whoever has a token, and what it allows: an entry of the file. None is no limit."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False, description="Of the token.")
    models: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Names of those that it may use."
    )
    requests_per_minute: int | None = Field(default=None, ge=1, description="Calls of Generate.")
    concurrent: int | None = Field(default=None, ge=1, description="Generations at the same time.")

    def may_use(self, model: str) -> bool:
        """Whether it may use the model of that name."""
        return self.models is None or model in self.models


class _Entries(Table):
    tokens: tuple[Caller, ...]


current_caller: ContextVar[Caller | None] = ContextVar("current_caller", default=None)
"""Who makes the call that is being handled; None where no tokens are configured."""


def digest_token(token: str) -> str:
    """Return the SHA-256 of a token, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """The callers that a file lists; a new version of the file is used within a second."""

    def __init__(
        self,
        file: Path,
        served_models: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file.

        Raises:
            ConfigurationError: it cannot be used.
        """
        self._callers = Reloaded(
            lambda: _read(file, served_models), [file], interval_s=_LOOK_EVERY_S, clock=clock
        )

    def find(self, token: str) -> Caller | None:
        """Return whose token it is, in a time that does not tell how much of it is right."""
        digest = digest_token(token)
        found = [
            caller for caller in self._callers.get() if hmac.compare_digest(caller.sha256, digest)
        ]
        return found[0] if found else None


def _read(file: Path, served_models: Collection[str]) -> tuple[Caller, ...]:
    try:
        document = TomlFile(file)
    except ConfigurationError as error:
        raise ConfigurationError(f"tokens_file: {error}") from None
    try:
        callers = _Entries.model_validate(document.values).tokens
        problems = _list_problems(callers, served_models, document)
    except ValidationError as error:
        problems = describe_problems(error, _Entries, document.locate)
    if problems:
        raise ConfigurationError("\n".join(f"tokens_file: {problem}" for problem in problems))
    return callers


def _list_problems(
    callers: Sequence[Caller], served_models: Collection[str], document: TomlFile
) -> list[str]:
    """List what is wrong between entries, and between them and the models."""
    problems = []
    seen: set[tuple[str, str]] = set()
    for index, caller in enumerate(callers):
        for key in ("name", "sha256"):
            if (key, getattr(caller, key)) in seen:
                where = document.locate(("tokens", index, key))
                problems.append(f"{where}: another entry has the same {key}")
            seen.add((key, getattr(caller, key)))
        for model in caller.models or ():
            if model not in served_models:
                where = document.locate(("tokens", index, "models"))
                problems.append(f"{where}: {model!r} is not one of: {', '.join(served_models)}")
    return problems
