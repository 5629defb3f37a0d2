"""A toy dialect: an API that exists in the tests alone, in one module."""

from starlette.responses import JSONResponse, Response

from safelight_gateway.dialects.dialect import Dialect, DialectRoute, Proxy
from safelight_gateway.edge.call import Call
from safelight_gateway.errors import GatewayError
from safelight_gateway.fields.parameters import read_request
from safelight_gateway.fields.rules import IMAGE_INPUT


def render_error(error: GatewayError) -> Response:
    return JSONResponse({"trouble": error.message}, error.status)


async def _draw(call: Call) -> Response:
    model = call.request.path_params["model"]
    result = await call.state.generator.run(read_request(call, call.json(), model=(model,)))
    headers = {"x-toy-ignored": ",".join(result.ignored_fields)}
    return Response(result.images[0].data, media_type="image/png", headers=headers)


async def _find_request(call: Call) -> Response:
    return JSONResponse({"toy": call.request.path_params["id"]})


DIALECT = Dialect(
    name="toy",
    routes=(
        DialectRoute("POST", "/toy/draw/{model}", _draw),
        DialectRoute("GET", "/toy/requests/{id}", _find_request),
    ),
    render_error=render_error,
    parameter_aliases={
        "idea": "prompt",
        "strokes": "num_inference_steps",
        "across": "width",
        "down": "height",
    },
    hints=("mood",),
    refusals={"photo": IMAGE_INPUT},
    hosts={"toy.example": "/toy", "beta.toy.*": "/toy"},
    proxy=Proxy("/toy-proxy", header="x-toy-target"),
    deadline_headers=("x-toy-patience",),
    credential_schemes=("Crayon",),
    id_header="x-toy-id",
    is_provider=True,
)
