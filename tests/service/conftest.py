"""Fixtures of the service's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.engine.tiny_models import TinyModels
from support.redis_server import HINT, IS_INSTALLED, RedisServer, open_redis_server


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyModels]:
    """A tiny model of each family, saved and loaded on first use."""
    thread_count = torch.get_num_threads()
    torch.set_num_threads(1)  # layers this small run slower on several threads
    yield TinyModels(Path(tmp_path_factory.mktemp("models")))
    torch.set_num_threads(thread_count)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A server that is not running yet."""
    if not IS_INSTALLED:
        pytest.skip(HINT)
    with open_redis_server() as server:
        yield server
