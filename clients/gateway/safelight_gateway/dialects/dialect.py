"""A dialect: one API in front of the service, described as data."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from starlette.responses import Response

from safelight_gateway.errors import GatewayError

if TYPE_CHECKING:
    from safelight_gateway.edge.call import Call

Handler: TypeAlias = "Callable[[Call], Awaitable[Response]]"
ErrorRenderer: TypeAlias = Callable[[GatewayError], Response]

Parameter = Literal[
    "prompt",
    "negative_prompt",
    "width",
    "height",
    "size",
    "num_inference_steps",
    "guidance_scale",
    "scheduler",
    "seed",
    "n",
    "output_format",
    "output_quality",
]
"""Names of parameters that every dialect takes; aliases map to them."""


@dataclass(frozen=True, slots=True)
class DialectRoute:
    """One route of a dialect.

    Attributes:
        method: HTTP method, such as POST.
        path: Path in Starlette's notation, such as `/toy/{model:path}`.
        handler: Answers the calls.
    """

    method: str
    path: str
    handler: Handler


@dataclass(frozen=True, slots=True)
class Proxy:
    """A path for clients that name their provider's URL in a header.

    The gateway answers these requests itself, as if they had been sent to that URL.

    Attributes:
        path: Path of the proxy, such as `/fal-proxy`.
        header: Request header with an https URL at one of the dialect's hosts.
    """

    path: str
    header: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One API: its routes, its errors, and the names that only it uses.

    Aliases, headers and schemes hold on the routes of all dialects.

    Attributes:
        name: Name of the provider, as Hugging Face's clients spell it.
        routes: Routes, in any order.
        render_error: Renders an error as this API's clients read it.
        parameter_aliases: Names of this API for parameters, and the parameter of each.
        hosts: Host names, and the root below which each finds its routes. A trailing
            `*` matches any rest.
        proxy: Path for requests that name their target in a header.
        deadline_headers: Request headers with the seconds that the caller waits. The first
            one present counts.
        credential_schemes: Authorization schemes of a token, besides Bearer.
        id_header: Response header with the request's id, besides x-request-id.
        is_provider: Whether the Hub's mapping of a model names this dialect.
    """

    name: str
    routes: tuple[DialectRoute, ...]
    render_error: ErrorRenderer
    parameter_aliases: Mapping[str, Parameter] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    proxy: Proxy | None = None
    deadline_headers: tuple[str, ...] = ()
    credential_schemes: tuple[str, ...] = ()
    id_header: str | None = None
    is_provider: bool = False
