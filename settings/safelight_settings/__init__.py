"""Basis of Safelight's programs: their settings, log, standard streams, descriptors and proxies.

Settings are read and checked once, at start, and immutable afterwards. `load` merges the options of
the command line, environment variables and a TOML file. Programs declare their settings as a
subclass of `ProgramSettings`, with a `Table` for each nested part.
"""

from safelight_settings.address import Address
from safelight_settings.descriptors import count_connections, raise_descriptor_limit
from safelight_settings.errors import ConfigurationError
from safelight_settings.keys import suggest
from safelight_settings.line_limit import LineLimit
from safelight_settings.loading import load
from safelight_settings.log_writer import LogWriter
from safelight_settings.paths import ConfigPath, OptionalPath, PathField, default_cache, expand_home
from safelight_settings.problems import describe_problems
from safelight_settings.standard_streams import announce, open_standard_streams
from safelight_settings.tables import ProgramSettings, Table
from safelight_settings.toml_file import TomlFile
from safelight_settings.trusted_proxies import (
    Network,
    TrustedProxies,
    find_network,
    normalize_host,
)

__all__ = [
    "Address",
    "ConfigPath",
    "ConfigurationError",
    "LineLimit",
    "LogWriter",
    "Network",
    "OptionalPath",
    "PathField",
    "ProgramSettings",
    "Table",
    "TomlFile",
    "TrustedProxies",
    "announce",
    "count_connections",
    "default_cache",
    "describe_problems",
    "expand_home",
    "find_network",
    "load",
    "normalize_host",
    "open_standard_streams",
    "raise_descriptor_limit",
    "suggest",
]
