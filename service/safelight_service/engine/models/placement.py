"""Placement: the device and the precision of a model, from its settings."""

import torch

from safelight_service.engine.hardware import explain_absence, indexed
from safelight_service.settings import (
    ConfigurationError,
)


def choose_device(setting: str) -> torch.device:
    """Return the device of a model's setting.

    Raises:
        ConfigurationError: torch cannot use it on this machine.
    """
    check_device(setting)
    if setting == "auto":
        setting = "cuda" if torch.cuda.is_available() else "cpu"
    return indexed(torch.device(setting))


def check_device(setting: str) -> None:
    """Check that torch can use the device that a model's setting names.

    Raises:
        ConfigurationError: it cannot, on this machine.
    """
    reason = None if setting == "auto" else explain_absence(torch.device(setting))
    if reason is not None:
        raise ConfigurationError(
            f'device: cannot use "{setting}", since {reason}; "cpu" and "auto" always work'
        )


def choose_dtype(setting: str, device: torch.device) -> torch.dtype:
    """Return the precision of a model's setting on a device."""
    if setting == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    dtype: torch.dtype = getattr(torch, setting)
    return dtype
