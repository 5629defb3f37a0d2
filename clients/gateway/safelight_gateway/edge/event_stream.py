"""The event stream: server-sent events from a generator, with keep-alive comments."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_SIGN_OF_LIFE_S = 10.0
_SIGN_OF_LIFE = ": the service is at work\n\n"


class EventStream(StreamingResponse):
    """A response of server-sent events. A disconnect closes their generator."""

    media_type = "text/event-stream"

    def __init__(self, frames: AsyncGenerator[str, None], headers: dict[str, str]) -> None:
        """Create the response.

        Args:
            frames: Whole events, each with its blank line.
            headers: Further headers.
        """
        self._frames = frames
        self._body = self._with_keep_alives()
        # nginx would otherwise hold events back until its buffer is full.
        fixed = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(self._body, headers={**headers, **fixed})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end, or the client disconnects."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._body.aclose()
            await self._frames.aclose()

    async def _with_keep_alives(self) -> AsyncGenerator[str, None]:
        """Yield the events, and comments while there are none, since proxies close idle streams."""
        while True:
            reading = asyncio.ensure_future(anext(self._frames, None))
            try:
                while not (await asyncio.wait({reading}, timeout=_SIGN_OF_LIFE_S))[0]:
                    yield _SIGN_OF_LIFE
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            frame = reading.result()
            if frame is None:
                return
            yield frame
