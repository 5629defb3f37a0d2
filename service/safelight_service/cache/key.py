"""Cache key: equal for requests whose images have the same bytes and may be shared."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from importlib import metadata

from safelight_service.core.request import ResolvedRequest

_DISTRIBUTIONS = ("Pillow", "diffusers", "safelight-service", "torch", "torchao", "transformers")


def cache_key(model: str, request: ResolvedRequest, scope: str = "", marking: str = "") -> str:
    """Return a SHA-256, in hexadecimal, of everything that affects the bytes of the images.

    `model` is the identity of the loaded model. The key covers all of the request except its
    previews, so a field that is added later is covered too. It also covers `scope`, the name of
    the callers that share the result, so that no others find it; empty stands for all callers.
    `marking` is how the images are marked as generated.
    """
    facts = {
        "scope": scope,
        "model": model,
        "marking": marking,
        "request": dataclasses.asdict(dataclasses.replace(request, preview=None)),
        "versions": _versions(),
    }
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _versions() -> dict[str, str]:
    versions = {}
    for name in _DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):  # torchao is optional
            versions[name] = metadata.version(name)
    return versions
