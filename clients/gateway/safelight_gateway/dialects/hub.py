"""The Hub: lookups of Hugging Face's clients before they call a provider."""

from contextlib import suppress
from http import HTTPStatus

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
    """Render an error in the format of the Hub."""
    response = render_text_error(error)
    if error.reason == "MODEL_NOT_FOUND":
        response.headers["x-error-code"] = "RepoNotFound"
    return response


async def _map_model(call: Call) -> Response:
    """Map the model to every provider, under its own id: all dialects accept it."""
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
    """Return the models that the caller may use, or else those that the gateway may use.

    Returns None if the service rejects both tokens. Generation then reports the error.
    """
    token = call.state.settings.token
    contexts = [CallContext(credential=token.get_secret_value() if token else None)]
    with suppress(GatewayError):  # the token is not one of the service
        contexts.insert(0, call.context)
    for context in contexts:
        try:
            return await call.state.models.list(context)
        except GatewayError as error:
            if error.status != HTTPStatus.UNAUTHORIZED:
                raise
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
