"""Engine observer: traces and metrics of an engine's process, beside those of the fronts."""

from typing import TYPE_CHECKING

from safelight_service.settings import ConfigurationError, Settings
from safelight_service.telemetry.signals import open_telemetry

if TYPE_CHECKING:
    from safelight_service.telemetry.telemetry import Telemetry

PROCESS = "safelight-engine"
"""Default of `service.name`, which tells engines from fronts."""

_PORT_COUNT = 32
"""Ports that an engine tries for Prometheus; those of a machine need one each."""


def open_engine_observer(settings: Settings) -> "Telemetry | None":
    """Set up telemetry by the OTEL_... variables of this process, and `ray.prometheus_listen`.

    Raises:
        ConfigurationError: the environment asks for telemetry that is not supported, or none of
            the ports for Prometheus is free.
    """
    first = settings.ray.prometheus_listen
    if first is None:
        return open_telemetry(_listening_on(settings, None), PROCESS)
    host, _, port = first.rpartition(":")
    ports = range(int(port), int(port) + _PORT_COUNT) if int(port) else (0,)
    for each in ports[:-1]:
        try:
            return open_telemetry(_listening_on(settings, f"{host}:{each}"), PROCESS)
        except ConfigurationError:  # taken by another engine of this machine
            continue
    return open_telemetry(_listening_on(settings, f"{host}:{ports[-1]}"), PROCESS)


def _listening_on(settings: Settings, address: str | None) -> Settings:
    telemetry = settings.telemetry.model_copy(update={"prometheus_listen": address})
    return settings.model_copy(update={"telemetry": telemetry})
