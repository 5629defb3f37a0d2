"""A dialect: the description of one API as data."""

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
    "aspect_ratio",
    "megapixels",
    "num_inference_steps",
    "guidance_scale",
    "scheduler",
    "sampler",
    "seed",
    "step_reuse",
    "adapters",
    "lora_weights",
    "lora_scale",
    "extra_lora",
    "extra_lora_scale",
    "n",
    "output_format",
    "output_quality",
]
"""Parameters that every dialect accepts; aliases map to them."""


@dataclass(frozen=True, slots=True)
class DialectRoute:
    """One route of a dialect.

    Attributes:
        method: HTTP method, such as POST.
        path: Path in Starlette's notation, such as `/toy/{model:path}`.
        handler: Answers calls to the route.
    """

    method: str
    path: str
    handler: Handler


@dataclass(frozen=True, slots=True)
class Proxy:
    """A path for clients that name their target URL in a header.

    The gateway answers itself, as if the client had called that URL; it forwards nothing.

    Attributes:
        path: Path of the proxy, such as `/fal-proxy`.
        header: Request header with an https URL at one of the dialect's hosts.
    """

    path: str
    header: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is refused: ignoring it would give the caller another answer than requested.

    Attributes:
        reason: Advice for the caller; it follows the field's name.
        harmless: Values that ask for nothing, besides null, false and empty ones.
    """

    reason: str
    harmless: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One API: its routes, its errors, and the names that it adds.

    Aliases, hints, refusals, headers and schemes apply to the routes of all dialects. A field
    that no dialect lists is refused.

    Attributes:
        name: Unique name; for a provider, the name that Hugging Face's clients use.
        routes: Routes, in any order.
        render_error: Renders an error in the format of the API.
        parameter_aliases: Maps the API's names to parameters.
        own_fields: Fields that only the dialect's own handlers read.
        hints: Fields without effect: the caller gets the same kind of image, delivered the
            same way.
        refusals: Fields that cannot be ignored without changing the image or its delivery.
        hosts: Maps host names of the API to the root path of their routes. `*` in a name
            matches any characters.
        proxy: Path for requests that name their target URL in a header.
        deadline_headers: Request headers with a timeout in seconds. The first one present
            counts.
        credential_schemes: Authorization schemes that carry a token, besides Bearer.
        id_header: Response header with the request's id, besides x-request-id.
        is_provider: Whether the Hub's provider mapping lists the dialect.
    """

    name: str
    routes: tuple[DialectRoute, ...]
    render_error: ErrorRenderer
    parameter_aliases: Mapping[str, Parameter] = field(default_factory=dict)
    own_fields: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    proxy: Proxy | None = None
    deadline_headers: tuple[str, ...] = ()
    credential_schemes: tuple[str, ...] = ()
    id_header: str | None = None
    is_provider: bool = False
