"""Nebius: OpenAI's images API below `/nebius`."""

from safelight_gateway.dialects import openai
from safelight_gateway.dialects.dialect import Dialect

DIALECT = Dialect(
    name="nebius",
    routes=openai.image_routes("/nebius", "b64_json"),
    render_error=openai.render_error,
    parameter_aliases={"response_extension": "output_format"},
    own_fields=openai.OWN_FIELDS,
    is_provider=True,
)
