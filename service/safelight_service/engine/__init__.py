"""The engine: everything that touches torch and diffusers, and nothing that touches gRPC."""

from safelight_service.engine.engine import Engine, report_fault

__all__ = ["Engine", "report_fault"]
