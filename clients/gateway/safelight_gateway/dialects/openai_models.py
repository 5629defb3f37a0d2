"""OpenAI's list of models, and single models."""

from typing import Any

from safelight import Model
from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects.dialect import DialectRoute
from safelight_gateway.edge.call import Call
from safelight_gateway.errors import bad_request

_OWNER = "safelight"
_CREATED = 0
"""Unix time of a model's creation, which the service does not know."""


def model_routes(root: str) -> tuple[DialectRoute, ...]:
    """Return the routes below a root such as `/nebius/v1`.

    The list at `/v1` itself is a native route, which answers in both formats.
    """
    single = DialectRoute("GET", f"{root}/models/{{model:path}}", _get_model)
    if root == "/v1":
        return (single,)
    return (DialectRoute("GET", f"{root}/models", _list_models), single)


def list_models(names: list[str]) -> dict[str, Any]:
    """Return OpenAI's list of models with these names."""
    return {"object": "list", "data": [_describe(name) for name in names]}


def _describe(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": _OWNER}


async def _list_models(call: Call) -> Response:
    models = await call.state.models.list(call.context)
    return JSONResponse(list_models([model.name for model in models]))


async def _get_model(call: Call) -> Response:
    """Describe the model of an id or alias, under the id that the caller uses."""
    id_ = call.request.path_params["model"]
    if not id_:
        raise bad_request("the path must name a model", 404)
    model: Model = await call.state.models.find((id_,), call.context)
    return JSONResponse(_describe(id_) | {"root": model.name})
