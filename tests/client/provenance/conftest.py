"""Fixtures of the tests of provenance."""

import pytest

from support.signed_images.signing import Authority, make_authority


@pytest.fixture(scope="session")
def authority() -> Authority:
    """An authority with a signer."""
    return make_authority()
