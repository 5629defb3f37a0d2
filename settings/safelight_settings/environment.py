"""Environment: settings from variables such as SAFELIGHT_TLS__CERTIFICATE."""

import json
import os
import re
from collections.abc import Iterator
from typing import Any

from pydantic_settings import EnvSettingsSource

from safelight_settings import keys
from safelight_settings.errors import ConfigurationError
from safelight_settings.tables import ProgramSettings

_DELIMITER = "__"
_NUMBER = r"\d{1,5}"
_HOST = r"[\w.:-]+"
_URL = r"(tcp|udp|sctp)://.*"
_SERVICE_LINKS = [
    # Kubernetes injects these into every container for each Service of the namespace. Services
    # named safelight or safelight-redis yield variables with the settings' prefix.
    (re.compile(r"\w+_SERVICE_HOST"), re.compile(_HOST)),
    (re.compile(r"\w+_SERVICE_PORT(_\w+)?"), re.compile(_NUMBER)),
    (re.compile(r"\w+_PORT(_\d+_(TCP|UDP|SCTP))?"), re.compile(_URL)),
    (re.compile(r"\w+_PORT_\d+_(TCP|UDP|SCTP)_PROTO"), re.compile(r"tcp|udp|sctp")),
    (re.compile(r"\w+_PORT_\d+_(TCP|UDP|SCTP)_PORT"), re.compile(_NUMBER)),
    (re.compile(r"\w+_PORT_\d+_(TCP|UDP|SCTP)_ADDR"), re.compile(_HOST)),
]


class Environment:
    """The settings in environment variables.

    A variable is a prefix, then the key in capitals; `__` separates a table from its key. Tables
    and lists are JSON. A key's own variable takes precedence over its table's.
    """

    def __init__(
        self, model: type[ProgramSettings], foreign: re.Pattern[str] | None = None
    ) -> None:
        """Read the variables, except those of other programs, which match `foreign`.

        Raises:
            ConfigurationError: a variable is not a setting, or a table or a list is not JSON.
        """
        self._prefix = str(model.model_config.get("env_prefix", "")).upper()
        self.config_variable = f"{self._prefix}CONFIG"
        self._variables = {
            name.upper(): value
            for name, value in os.environ.items()
            if name.upper().startswith(self._prefix)
            and not (foreign and foreign.fullmatch(name.upper()))
        }
        if problems := [*self._list_unknown(model), *self._list_malformed(model)]:
            raise ConfigurationError("\n".join(problems))
        self.values: dict[str, Any] = EnvSettingsSource(model, case_sensitive=False)()

    @property
    def config_file(self) -> str | None:
        """The file that the variable PREFIX_CONFIG names."""
        return self._variables.get(self.config_variable) or None

    def locate(self, path: keys.Path) -> str:
        """Return the variable that sets a value: its own, or its table's and the key."""
        for end in range(len(path), 0, -1):
            name = self._name(path[:end])
            if name in self._variables:
                return name if end == len(path) else f"{name}: {keys.write_path(path)}"
        return keys.write_path(path)

    def _name(self, path: keys.Path) -> str:
        return self._prefix + _DELIMITER.join(str(part) for part in path).upper()

    def _list_unknown(self, model: type[ProgramSettings]) -> Iterator[str]:
        known = {self._name(key) for key in keys.list_keys(model, with_lists=False)}
        known.add(self.config_variable)
        for name in sorted(self._variables.keys() - known):
            if not _is_service_link(name, self._variables[name]):
                candidates = (each.removeprefix(self._prefix) for each in known)
                hint = keys.suggest(name.removeprefix(self._prefix), candidates, self._prefix)
                yield f"the environment variable {name} is not a setting{hint}"

    def _list_malformed(self, model: type[ProgramSettings]) -> Iterator[str]:
        for key, field in model.model_fields.items():
            name = self._name((key,))
            if name in self._variables and keys.is_structured(field.annotation):
                try:
                    json.loads(self._variables[name])
                except json.JSONDecodeError as error:
                    yield f"{name}: must be JSON: {error.msg} at character {error.pos + 1}"


def _is_service_link(name: str, value: str) -> bool:
    return any(
        name_form.fullmatch(name) and value_form.fullmatch(value)
        for name_form, value_form in _SERVICE_LINKS
    )
