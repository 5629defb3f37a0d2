"""Fixtures of the cache's tests."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
