"""Engine: everything that uses torch and diffusers; imports no gRPC."""

from safelight_service.engine.engine import Engine

__all__ = ["Engine"]
