"""Composition root: the only module that builds an engine."""

import functools
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from safelight_service.core.backend import Backend
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.grpc_server.server import Server
from safelight_service.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    from safelight_service.engine import Engine


def import_backend(settings: Settings) -> None:
    """Import what the backend needs, which takes seconds for an engine."""
    if settings.backend == "local":
        importlib.import_module("safelight_service.engine")


def make_server(settings: Settings) -> Server:
    """Make a server of the backend that the settings choose; the caller starts it.

    Raises:
        ConfigurationError: a file named by the settings cannot be used, or Ray is not installed.
        ConnectionError: the Ray cluster does not answer, or has no engines.
    """
    make_backend = make_remote_backend if settings.backend == "ray" else make_engine
    return Server(settings, functools.partial(make_backend, settings))


def make_engine(settings: Settings, observer: Observer = NULL_OBSERVER) -> "Engine":
    """Make a local engine."""
    # Imported here: a front needs no torch, which takes seconds and 300 MB.
    from safelight_service.engine import Engine

    return Engine(settings, observer)


def calibrate(
    settings: Settings,
    model: str,
    prompts: Sequence[str] = (),
    scheduler: str | None = None,
    step_count: int | None = None,
) -> tuple[Path, str]:
    """Measure which steps of a model can be reused; return the file and the scheduler.

    Without prompts, it uses its own.

    Raises:
        ConfigurationError: the settings have no such model, or no file for profiles.
        SafelightError: the model makes no images with these parameters.
        OSError: the file cannot be written.
    """
    from safelight_service.engine.calibration import PROMPTS, calibrate_model

    return calibrate_model(settings, model, prompts or PROMPTS, scheduler, step_count)


def make_remote_backend(settings: Settings, observer: Observer = NULL_OBSERVER) -> Backend:
    """Make a backend whose engines run on a Ray cluster.

    Raises:
        ConfigurationError: Ray is not installed.
        ConnectionError: the cluster does not answer, or has no engines.
    """
    try:
        from safelight_service.fleet.ray_serve import deployment
    except ImportError as error:
        raise ConfigurationError(
            "backend: ray is not installed; install safelight-service[ray]"
        ) from error
    return deployment.make_remote_backend(settings)
