"""The registry: the combined declarations of all dialects."""

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import TypeVar, get_args

from safelight_gateway.dialects.dialect import Dialect, Handler, Parameter, Refusal
from safelight_gateway.fields.rules import HINTS, REFUSALS

_Value = TypeVar("_Value")

_SCHEME = "Bearer"
_DEADLINE_HEADER = "x-request-timeout"


class DialectRegistry:
    """The dialects, with lookups over their combined declarations.

    Attributes:
        providers: Names for the Hub's provider mapping, in order.
        parameter_names: Every accepted name of a parameter.
        hints: Names of fields without effect.
        refusals: Names of refused fields, with the reasons.
        deadline_headers: Request headers with a timeout in seconds, by precedence.
        id_headers: Response headers with the request's id, besides x-request-id.
    """

    def __init__(self, dialects: Iterable[Dialect] = ()) -> None:
        """Combine the declarations.

        Raises:
            ValueError: two dialects claim the same name, route, field, host or proxy path.
        """
        self._dialects = tuple(dialects)
        names: dict[str, Dialect] = {}
        routes: dict[str, Handler] = {}
        aliases: dict[str, Parameter] = {name: name for name in get_args(Parameter)}
        uses: dict[str, str] = {
            **dict.fromkeys(aliases, "a parameter"),
            **dict.fromkeys(HINTS, "a hint"),
            **dict.fromkeys(REFUSALS, "refused"),
        }
        self.refusals: dict[str, Refusal] = dict(REFUSALS)
        hints: set[str] = {*HINTS}
        self._roots: dict[str, str] = {}
        self._proxies: dict[str, Dialect] = {}
        for dialect in self._dialects:
            _claim(names, "name", dialect.name, dialect)
            for route in dialect.routes:
                _claim(routes, "route", f"{route.method} {route.path}", route.handler)
            for alias, parameter in dialect.parameter_aliases.items():
                _claim(aliases, "parameter", alias, parameter)
                _claim(uses, "field", alias, "a parameter")
            for name in dialect.hints:
                _claim(uses, "field", name, "a hint")
                hints.add(name)
            for name, refusal in dialect.refusals.items():
                _claim(uses, "field", name, "refused")
                _claim(self.refusals, "refusal", name, refusal)
            for host, root in dialect.hosts.items():
                _claim(self._roots, "host", host, root)
            if dialect.proxy is not None:
                _claim(self._proxies, "proxy", dialect.proxy.path, dialect)
        self.parameter_names = frozenset(aliases)
        self.hints = frozenset(hints)
        self._names: dict[Parameter, tuple[str, ...]] = {
            parameter: tuple(name for name, meaning in aliases.items() if meaning == parameter)
            for parameter in get_args(Parameter)
        }
        self.providers = tuple(each.name for each in self._dialects if each.is_provider)
        self.deadline_headers = (
            *(header for each in self._dialects for header in each.deadline_headers),
            _DEADLINE_HEADER,
        )
        self.id_headers = tuple(each.id_header for each in self._dialects if each.id_header)
        schemes = (scheme for each in self._dialects for scheme in each.credential_schemes)
        allowed = "|".join(re.escape(scheme) for scheme in (_SCHEME, *schemes))
        self._credential = re.compile(rf" *(?:{allowed}):? +([!-~]+) *", re.IGNORECASE)

    def __iter__(self) -> Iterator[Dialect]:
        """Iterate over the dialects, in order."""
        return iter(self._dialects)

    def names_of(self, parameter: Parameter) -> tuple[str, ...]:
        """Return the accepted names of a parameter, by precedence."""
        return self._names[parameter]

    def read_credential(self, authorization: str) -> str | None:
        """Return the token in an Authorization header; None if the scheme or form is unknown."""
        match = self._credential.fullmatch(authorization)
        return match[1] if match else None

    def root_of(self, host: str) -> str | None:
        """Return the root path for a host of a dialect; None for any other host."""
        for pattern, root in self._roots.items():
            if fnmatchcase(host, pattern):
                return root
        return None

    def dialect_at(self, path: str) -> Dialect | None:
        """Return the dialect whose routes share the longest beginning with a path.

        Of several, the last one counts. None if no route shares its first segment.
        """
        segments = path.split("/")[1:]
        best, most = None, 0
        for dialect in self._dialects:
            for route in dialect.routes:
                pairs = zip(segments, route.path.split("/")[1:], strict=False)
                shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
                if shared and shared >= most:
                    best, most = dialect, shared
        return best

    def proxy_at(self, path: str) -> Dialect | None:
        """Return the dialect with a proxy at this path; None if there is none."""
        return self._proxies.get(path)


def _claim(claimed: dict[str, _Value], kind: str, key: str, value: _Value) -> None:
    if claimed.setdefault(key, value) != value:
        raise ValueError(f"two dialects claim the {kind} {key!r}; each may have only one meaning")
