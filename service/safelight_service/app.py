"""Composition root: the only module that builds an engine."""

import functools

from safelight_service.engine import Engine
from safelight_service.grpc_server.server import Server
from safelight_service.settings import Settings


def make_server(settings: Settings) -> Server:
    """Make a server of the local engine; the caller starts it.

    Raises:
        ConfigurationError: a file named by the settings cannot be used.
    """
    return Server(settings, functools.partial(Engine, settings))
