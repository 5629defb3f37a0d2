"""App: the composition root, the only module that builds an engine."""

import functools

from safelight_service.engine import Engine
from safelight_service.grpc_server.server import Server
from safelight_service.settings import Settings


def make_server(settings: Settings) -> Server:
    """Return a server of the local engine, to be started.

    Raises:
        ConfigurationError: a file that the settings name cannot be used.
    """
    return Server(settings, functools.partial(Engine, settings))
