"""Tokens: who may call, and what each caller may do, from a TOML file of digests."""

import hashlib
import hmac
import time
import tomllib
from collections.abc import Callable, Collection
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from safelight_service.auth.reloading import Reloaded
from safelight_service.settings import ConfigurationError

_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Caller:
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


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

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
    values: dict[str, Any] = {}
    try:
        values = tomllib.loads(file.read_text())
        callers = _File.model_validate(values).tokens
        _check(callers, served_models)
    except ValidationError as error:
        raise ConfigurationError("; ".join(_describe(error, values))) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"tokens_file: {error}") from None
    return callers


def _check(callers: tuple[Caller, ...], served_models: Collection[str]) -> None:
    seen: set[tuple[str, str]] = set()
    for caller in callers:
        for key in ("name", "sha256"):
            if (key, getattr(caller, key)) in seen:
                raise ValueError(f"token {caller.name!r}: another entry has the same {key}")
            seen.add((key, getattr(caller, key)))
        for model in caller.models or ():
            if model not in served_models:
                raise ValueError(
                    f"token {caller.name!r}: model {model!r} is not one of: "
                    f"{', '.join(served_models)}"
                )


def _describe(error: ValidationError, values: dict[str, Any]) -> list[str]:
    """Name the entry and the key of each problem, and no value, which may be a token."""
    lines = []
    for problem in error.errors(include_input=False):
        where = [str(part) for part in problem["loc"]]
        if len(where) > 1:
            entry = values["tokens"][int(where[1])]
            name = entry.get("name") if isinstance(entry, dict) else None
            where[:2] = [f"token {name!r}" if name else f"entry {int(where[1]) + 1}"]
        lines.append(": ".join(["tokens_file", *where, problem["msg"]]))
    return lines
