"""Tenant: the party that device time counts for, and its weight."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ServiceClass = Literal["interactive", "standard", "batch"]
"""How urgent a tenant's work is."""

CLASS_FACTORS: Mapping[ServiceClass, float] = {"interactive": 4.0, "standard": 1.0, "batch": 0.25}
"""Factor of a tenant's weight, by its class. No class can starve another."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Owner of a token, or a client's address where the service has no tokens."""

    name: str = ""
    """Token name, address or network; empty for the service itself and for local sockets."""
    weight: float = 1.0
    """Device time relative to other tenants that have work; above 0."""


NO_TENANT = Tenant()
"""The service itself, such as the warm-up of a model."""
