"""Fingerprint: a hashable stand-in for a value, including the content of its tensors."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from safelight_service.engine.pipeline.host_values import known_values


def fingerprint(value: Any) -> Hashable:
    """Return a hashable that is equal for equal values; tensors must be equal bit by bit."""
    match value:
        case Tensor():
            return _fingerprint_tensor(value)
        case Mapping():
            return frozenset((name, fingerprint(item)) for name, item in value.items())
        case list() | tuple():
            return tuple(fingerprint(item) for item in value)
        case None | bool() | int() | float() | str() | torch.dtype() | torch.device():
            return value
    return id(value)


_fingerprints: Any = WeakTensorKeyDictionary()
"""Fingerprints of tensors read before: pipelines pass the same ones at every step, and reading
one waits for the device."""


def _fingerprint_tensor(value: Tensor) -> Hashable:
    known: Hashable
    version, known = _fingerprints.get(value, (None, None))
    if version != value._version:
        values = known_values(value)
        if values is None:
            values = value.detach().cpu()
        content = values.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        known = value.dtype, tuple(value.shape), content
        _fingerprints[value] = value._version, known
    return known
