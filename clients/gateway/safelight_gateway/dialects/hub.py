"""The Hub: what clients look up there before they ask a provider for an image."""

from contextlib import suppress

from safelight import UnauthenticatedError
from safelight.models import Model
from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects.dialect import Dialect, DialectRoute
from safelight_gateway.dialects.hf_inference import render_error as render_text_error
from safelight_gateway.edge.call import Call
from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.request import CallContext

TASK = "text-to-image"
_NO_ID = "0" * 24


def render_error(error: GatewayError) -> Response:
    """Render an error as the Hub does."""
    response = render_text_error(error)
    if error.reason == "MODEL_NOT_FOUND":
        response.headers["x-error-code"] = "RepoNotFound"
    return response


async def _map_model(call: Call) -> Response:
    """Tell that every provider has the model, under the same id: that is what they take here."""
    id_ = call.request.path_params["model"]
    models = await _list_models(call)
    if models is not None and call.state.models.choose((id_,), models) is None:
        raise GatewayError(404, "Repository not found", "MODEL_NOT_FOUND")
    entry = {"status": "live", "providerId": id_, "task": TASK}
    mapping = dict.fromkeys(call.state.dialects.providers, entry)
    return JSONResponse(
        {
            "_id": _NO_ID,
            "id": id_,
            "modelId": id_,
            "pipeline_tag": TASK,
            "tags": [TASK],
            "private": False,
            "inferenceProviderMapping": mapping,
        }
    )


async def _list_tasks(call: Call) -> Response:
    ids = [model.name for model in await _list_models(call) or ()]
    return JSONResponse({TASK: {"models": [{"id": id_} for id_ in ids], "widgetModels": ids[:1]}})


async def _list_harnesses(call: Call) -> Response:
    return JSONResponse({"standardEnvVars": [], "harnesses": {}})


async def _list_models(call: Call) -> list[Model] | None:
    """Return the models that the caller or, where it says not who it is, the gateway may use.

    None where the service tells neither: whoever generates will be told.
    """
    token = call.state.settings.token
    contexts = [CallContext(credential=token.get_secret_value() if token else None)]
    with suppress(GatewayError):  # a token of something else
        contexts.insert(0, call.context)
    for context in contexts:
        try:
            return await call.state.models.list(context.call_metadata)
        except UnauthenticatedError:
            continue
    return None


DIALECT = Dialect(
    name="hub",
    routes=(
        DialectRoute("GET", "/api/models/{model:path}", _map_model),
        DialectRoute("GET", "/api/tasks", _list_tasks),
        DialectRoute("GET", "/api/agent-harnesses", _list_harnesses),
    ),
    render_error=render_error,
)
