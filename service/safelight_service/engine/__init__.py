"""The engine: everything that touches torch and diffusers, and nothing that touches gRPC."""

from safelight_service.engine.engine import BackendStats, Engine, Prepared, report_fault

__all__ = ["BackendStats", "Engine", "Prepared", "report_fault"]
