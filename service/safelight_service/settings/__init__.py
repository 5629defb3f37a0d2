"""Settings: read and checked once, at start; immutable afterwards.

Sources, in order of precedence: the command line, `SAFELIGHT_...` environment variables
(`SAFELIGHT_QUEUE_SIZE=8`, `SAFELIGHT_BATCHING__MAX_WIDTH=4`), and the TOML file that
`--config` or `SAFELIGHT_CONFIG` names. Unknown keys and variables are errors.
"""

from safelight_service.settings.adapter import AdapterSettings
from safelight_service.settings.fleet import (
    FleetSettings,
    PoolSettings,
    RaySettings,
    RecoverySettings,
)
from safelight_service.settings.model import (
    AccelerationSettings,
    DefaultSettings,
    LimitSettings,
    ModelSettings,
)
from safelight_service.settings.parts import (
    BatchingSettings,
    CacheSettings,
    ConnectionSettings,
    GenerationSettings,
    TelemetrySettings,
    TlsSettings,
)
from safelight_service.settings.provenance import ProvenanceSettings
from safelight_service.settings.settings import Settings, load_settings
from safelight_service.settings.sources import EMBEDDED_MODEL
from safelight_settings import ConfigurationError

__all__ = [
    "EMBEDDED_MODEL",
    "AccelerationSettings",
    "AdapterSettings",
    "BatchingSettings",
    "CacheSettings",
    "ConfigurationError",
    "ConnectionSettings",
    "DefaultSettings",
    "FleetSettings",
    "GenerationSettings",
    "LimitSettings",
    "ModelSettings",
    "PoolSettings",
    "ProvenanceSettings",
    "RaySettings",
    "RecoverySettings",
    "Settings",
    "TelemetrySettings",
    "TlsSettings",
    "load_settings",
]
