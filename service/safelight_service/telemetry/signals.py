"""Signals: the kinds of telemetry that the environment and the settings ask for."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safelight_service.settings import ConfigurationError, Settings, TelemetrySettings

if TYPE_CHECKING:
    from safelight_service.telemetry.telemetry import Telemetry

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRUE = "true"


@dataclass(frozen=True, slots=True)
class Signals:
    """Exports to set up; OpenTelemetry's SDK reads its further variables itself."""

    exports_traces: bool
    exports_metrics: bool
    prometheus_listen: str | None

    @property
    def has_metrics(self) -> bool:
        """Whether any metrics are exported."""
        return self.exports_metrics or self.prometheus_listen is not None

    @property
    def is_any(self) -> bool:
        """Whether anything is exported."""
        return self.exports_traces or self.has_metrics


def find_signals(settings: TelemetrySettings, environment: Mapping[str, str]) -> Signals:
    """Find the wanted exports: OTLP in OpenTelemetry's own variables, Prometheus in the settings.

    Raises:
        ConfigurationError: a variable names an exporter or a protocol that is not supported.
    """
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == _TRUE
    return Signals(
        exports_traces=not is_disabled and _is_exported("TRACES", environment),
        exports_metrics=not is_disabled and _is_exported("METRICS", environment),
        prometheus_listen=settings.prometheus_listen,
    )


def open_telemetry(settings: Settings, process: str = "safelight-service") -> "Telemetry | None":
    """Set up telemetry if any is exported; OpenTelemetry is not imported otherwise.

    Raises:
        ConfigurationError: the environment asks for telemetry that is not supported, or the
            Prometheus address cannot be bound.
    """
    signals = find_signals(settings.telemetry, os.environ)
    if not signals.is_any:
        return None
    from safelight_service.telemetry.telemetry import Telemetry

    models = [model.name for model in settings.models]
    default = settings.default_model or models[0]
    return Telemetry(settings.telemetry, signals, models, default, process)


def _is_exported(signal: str, environment: Mapping[str, str]) -> bool:
    """Whether a signal is exported: a variable names its exporter or an endpoint."""
    name = f"OTEL_{signal}_EXPORTER"
    exporter = environment.get(name, "").strip().lower()
    if exporter == "none":
        return False
    if exporter not in ("", "otlp"):
        raise ConfigurationError(f"{name} must be otlp or none, not {exporter!r}")
    endpoints = (_ENDPOINT, f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    if not exporter and not any(environment.get(endpoint) for endpoint in endpoints):
        return False
    # The signal's own variable takes precedence over that of all signals.
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environment.get(variable, "").strip().lower():
            if protocol != "grpc":
                raise ConfigurationError(f"{variable} must be grpc, not {protocol!r}")
            break
    return True
