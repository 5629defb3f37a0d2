"""Manifest: the claims about an image that a signature covers, as C2PA defines them."""

import json
from typing import Any

from safelight_service.core.request import ResolvedRequest
from safelight_service.provenance.origin import SOFTWARE, SOURCE_TYPE, Origin
from safelight_service.version import __version__

_PROMPTS_LABEL = "io.github.safelight-project.prompts"


def write_manifest(origin: Origin, *, include_prompts: bool) -> str:
    """Return the definition of an image's manifest, in the JSON of the C2PA libraries."""
    assertions = [_describe_prompts(origin.request)] if include_prompts else []
    return _write(origin.model, origin.revision, *assertions)


def write_trial_manifest() -> str:
    """Return the definition of a manifest that claims nothing about an image."""
    return _write("trial", "")


def _write(model: str, revision: str, *assertions: dict[str, Any]) -> str:
    agent = {"name": model, "version": revision}
    created = {
        "action": "c2pa.created",
        "digitalSourceType": SOURCE_TYPE,
        "softwareAgent": {name: fact for name, fact in agent.items() if fact},
    }
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [created]}, "created": True}
    return json.dumps(
        {
            "claim_generator_info": [{"name": SOFTWARE, "version": __version__}],
            "assertions": [actions, *assertions],
        }
    )


def _describe_prompts(request: ResolvedRequest) -> dict[str, Any]:
    prompts = {"prompt": request.inputs}
    if request.parameters.negative_prompt is not None:
        prompts["negative_prompt"] = request.parameters.negative_prompt
    return {"label": _PROMPTS_LABEL, "data": prompts, "created": True}
