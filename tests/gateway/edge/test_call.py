"""Calls: the parts of a request that handlers read."""

import pytest
from starlette.requests import Request

from safelight_gateway.edge.call import Call
from safelight_gateway.settings import Settings
from safelight_gateway.state import AppState


@pytest.mark.anyio
async def test_body_is_parsed_once() -> None:
    async with AppState(Settings()) as state:
        call = Call(state, Request({"type": "http", "headers": []}), b'{"prompt": "a star"}')
        assert call.json() == {"prompt": "a star"}
        assert call.json() is call.json()
