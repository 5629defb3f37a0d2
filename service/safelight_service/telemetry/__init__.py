"""Telemetry: an observer that exports traces and metrics by OpenTelemetry.

The service imports only `signals.py`, which does not need OpenTelemetry, until an OTEL_... variable
or a setting asks for telemetry.
"""
