"""Validation of manifests by Kubernetes' own schemas, and by short ones for other kinds.

Kubernetes' schemas come with the package kubernetes-validate. `schemas/` holds what these files use
of custom resources, which it does not know.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
from jsonschema import Draft202012Validator

from support.deploy.chart import Manifest

KUBERNETES = "1.31"
"""Version whose schemas count: fields that are newer are errors."""

_SCHEMAS = Path(__file__).parent / "schemas"


def find_problems(manifest: Manifest) -> list[str]:
    """Return what is wrong with a manifest: unknown fields, types, missing fields."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    file = _SCHEMAS / f"{kind.lower()}.json"
    if file.exists():
        errors = _read_validator(file).iter_errors(manifest)
        problems = [f"{error.json_path}: {error.message}" for error in errors]
        for template in _find_templates(manifest):
            pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": name}}
            problems += find_problems({**pod, "template": template})
        return [f"{kind} {name}: {problem}" for problem in problems]
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{kind} {name}: {error.json_path}: {error.message}"]
    return []


def _find_templates(value: Any) -> Iterator[Manifest]:
    """Yield the templates of pods in a custom resource."""
    if isinstance(value, list):
        for each in value:
            yield from _find_templates(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key == "template":
                yield each
            else:
                yield from _find_templates(each)


@cache
def _read_validator(file: Path) -> Draft202012Validator:
    return Draft202012Validator(json.loads(file.read_text()))
