"""Fixtures of the documentation's tests."""

import pytest

from tests.documentation.shell import Shell


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell in a new copy of the repository."""
    return Shell.create(tmp_path_factory.mktemp("reader"))
