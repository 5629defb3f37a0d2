"""Telemetry: what the observer is told, as OpenTelemetry's traces and metrics.

Nothing here is imported unless an OTEL_... variable or a setting asks for it; `signals.py` finds
that out, and needs nothing of OpenTelemetry.
"""
