"""Bounds on the streams of a tenant."""

from contextlib import ExitStack

import pytest

from safelight_service.core.errors import TooManyStreamsError
from safelight_service.core.tenant import Tenant
from safelight_service.generations.streams import StreamBounds

ONE, OTHER = Tenant("one"), Tenant("other")


def test_a_tenant_over_its_streams_is_refused_and_no_other() -> None:
    bounds = StreamBounds(2, 2)
    with ExitStack() as streams:
        for _ in range(2):
            streams.enter_context(bounds.open(ONE))
        for _ in range(2):
            with pytest.raises(TooManyStreamsError, match="2 streams open"), bounds.open(ONE):
                pass
        with bounds.open(OTHER):
            pass
    with bounds.open(ONE):
        pass


def test_only_extra_streams_count_as_such() -> None:
    bounds = StreamBounds(9, 1)
    with bounds.join(ONE, is_extra=True), bounds.join(ONE, is_extra=False):
        with (
            pytest.raises(TooManyStreamsError, match="1 streams of ended"),
            bounds.join(ONE, is_extra=True),
        ):
            pass
        with bounds.join(OTHER, is_extra=True):
            pass
    with bounds.join(ONE, is_extra=True):
        pass
