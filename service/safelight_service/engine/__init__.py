"""The engine: everything that touches torch and diffusers, and nothing that touches gRPC."""

from safelight_service.engine.engine import Engine

__all__ = ["Engine"]
