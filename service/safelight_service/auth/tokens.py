"""Tokens: callers and their limits, from a TOML file of token digests."""

import hashlib
import hmac
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from pydantic import Field, ValidationError

from safelight_service.auth.reloading import Reloaded
from safelight_service.core.tenant import CLASS_FACTORS, ServiceClass, Tenant
from safelight_service.settings import ConfigurationError
from safelight_settings import Table, TomlFile, describe_problems

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CHECK_EVERY_S = 1.0
"""Seconds between looks at the file for changes."""


class Caller(Table):
    """Owner of a token, and its limits: one entry of the file. None: unlimited."""

    name: str = Field(pattern=_NAME)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False, description="SHA-256 of the token.")
    models: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="Models that the caller may use."
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="Calls of Generate in any 60 seconds."
    )
    concurrent: int | None = Field(default=None, ge=1, description="Concurrent generations.")
    weight: float = Field(
        default=1.0, ge=0.001, le=1000, description="Device time relative to other tokens."
    )
    service_class: ServiceClass = Field(
        default="standard", description="Multiplies the weight: by 4, 1 or 1/4."
    )
    cache_group: str | None = Field(
        default=None, pattern=_NAME, description="Group of callers that share cached results."
    )

    @property
    def tenant(self) -> Tenant:
        """The caller as a tenant, weighted by its class."""
        return Tenant(self.name, self.weight * CLASS_FACTORS[self.service_class])

    @property
    def cache_scope(self) -> str:
        """Name of the callers that share cached results: the caller's group, or it alone."""
        return f"token:{self.name}" if self.cache_group is None else f"group:{self.cache_group}"

    def may_use(self, model: str) -> bool:
        """Whether the caller may use a model, by name."""
        return self.models is None or model in self.models


class _Entries(Table):
    tokens: tuple[Caller, ...]


current_caller: ContextVar[Caller | None] = ContextVar("current_caller", default=None)
"""Caller of the current RPC; None if the service has no tokens file."""


def current_owner() -> str:
    """Return the name of the current call's token; empty if the service needs none."""
    caller = current_caller.get()
    return caller.name if caller else ""


def digest_token(token: str) -> str:
    """Return the SHA-256 of a token, in lower-case hex."""
    return hashlib.sha256(token.encode()).hexdigest()


class Tokens:
    """The callers in a file, which is reread within a second of a change."""

    def __init__(
        self,
        file: Path,
        served_models: Collection[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file.

        Raises:
            ConfigurationError: the file cannot be read, or an entry is not allowed.
        """
        self._served_models = served_models
        self._callers = Reloaded(
            lambda: _read(file, served_models), [file], interval_s=CHECK_EVERY_S, clock=clock
        )

    @property
    def callers(self) -> tuple[Caller, ...]:
        """All callers of the file as it is now."""
        return self._callers.get()

    def find(self, token: str) -> Caller | None:
        """Return the token's owner, in a time that does not depend on the digests."""
        digest = digest_token(token)
        found = [caller for caller in self.callers if hmac.compare_digest(caller.sha256, digest)]
        return found[0] if found else None

    def list_accounts(self) -> Iterator[tuple[str, str]]:
        """Yield each served model with the name of each token that may use it. For any thread."""
        for caller in self._callers.present:
            for model in self._served_models:
                if caller.may_use(model):
                    yield model, caller.name


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
    """List repeated names and digests, and models that are not served."""
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
                problems.append(
                    f"{where}: {model!r} is not a served model: {', '.join(served_models)}"
                )
    return problems
