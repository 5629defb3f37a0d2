"""Bounds on the watches of a tenant."""

from contextlib import ExitStack

import pytest

from safelight_service.core.errors import TooManyWatchesError
from safelight_service.core.tenant import Tenant
from safelight_service.generations.watches import WatchBounds

ONE, OTHER = Tenant("one"), Tenant("other")


def test_a_tenant_over_its_watches_is_refused_and_no_other() -> None:
    bounds = WatchBounds(2)
    with ExitStack() as watches:
        for _ in range(2):
            watches.enter_context(bounds.enter(ONE))
        for _ in range(2):
            with pytest.raises(TooManyWatchesError, match="2 ended"), bounds.enter(ONE):
                pass
        with bounds.enter(OTHER):
            pass
    with bounds.enter(ONE):
        pass
