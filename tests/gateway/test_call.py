"""A call: what its handler reads of the request."""

import pytest
from starlette.requests import Request

from safelight_gateway.call import Call
from safelight_gateway.gateway import Gateway
from safelight_gateway.settings import Settings


@pytest.mark.anyio
async def test_body_is_parsed_once() -> None:
    async with Gateway(Settings()) as gateway:
        call = Call(gateway, Request({"type": "http", "headers": []}), b'{"prompt": "a star"}')
        assert call.json() == {"prompt": "a star"}
        assert call.json() is call.json()
