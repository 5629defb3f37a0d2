"""Together: OpenAI's images API, with links by default."""

from safelight_gateway.dialects import openai
from safelight_gateway.dialects.dialect import Dialect

DIALECT = Dialect(
    name="together",
    routes=openai.image_routes("/together", "url"),
    render_error=openai.render_error,
    parameter_aliases={
        "steps": "num_inference_steps",
        "guidance": "guidance_scale",
        "image_loras": "adapters",
    },
    own_fields=openai.OWN_FIELDS,
    hints=("disable_safety_checker",),
    hosts={"api.together.xyz": "/together", "api.together.ai": "/together"},
    is_provider=True,
)
