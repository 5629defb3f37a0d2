"""Parameters: the text that AUTOMATIC1111's web UI writes into images, for other tools to read."""

import json

from safelight_service.provenance.origin import Origin


def describe_parameters(origin: Origin) -> str:
    """Format the prompt, a line with the negative prompt, and a line of `Name: value` pairs."""
    request = origin.request
    parameters = request.parameters
    lines = [request.inputs]
    if parameters.negative_prompt is not None:
        lines.append(f"Negative prompt: {parameters.negative_prompt}")
    facts = {
        "Steps": parameters.num_inference_steps,
        "Sampler": origin.sampler,
        "CFG scale": parameters.guidance_scale,
        "Seed": origin.seed,
        "Size": f"{parameters.width}x{parameters.height}",
        "Model": origin.model,
        "Scheduler": parameters.scheduler,
        "Adapters": " ".join(f"{use.name}:{use.scale:g}" for use in request.adapters) or None,
        "Step reuse": parameters.step_reuse or None,
    }
    known = {name: str(fact) for name, fact in facts.items() if fact is not None}
    lines.append(", ".join(f"{name}: {_quote(fact)}" for name, fact in known.items()))
    return "\n".join(lines)


def _quote(value: str) -> str:
    """Quote a value with a separator in it, as the web UI does."""
    return json.dumps(value, ensure_ascii=False) if {*value} & {*",:\n"} else value
