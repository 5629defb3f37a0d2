"""Engine process: an engine host in a process of its own, which serves a socket until it is killed.

Each connection carries one call: the pickled name of a method and its arguments, then the pickled
frames. Its end cancels the call. Arguments of the module: the folder of the pool, and a name.
"""

import asyncio
import os
import pickle
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from safelight_service.app import make_engine
from safelight_service.core.observer import Observer
from safelight_service.core.timeline import SharedForward
from safelight_service.fleet.engine_host import EngineHost
from safelight_service.fleet.frames import Frame
from safelight_service.settings import Settings
from support.fleet.messages import FORWARDS, READY, SETTINGS, receive, send


class ForwardCounter(Observer):
    """Adds a byte to a file for each image of a forward; the count survives the process."""

    def __init__(self, path: Path) -> None:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def note_forward(forward: SharedForward) -> None:
            os.write(file, b"." * len(forward.members))

        self.note_forward = note_forward


async def serve(folder: Path, name: str) -> None:
    """Serve the socket of a name."""
    settings: Settings = pickle.loads((folder / SETTINGS).read_bytes())
    engine = make_engine(settings, ForwardCounter(folder / FORWARDS))
    await engine.start()
    host = EngineHost(engine, name)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, *arguments = await receive(reader)
        reply = getattr(host, method)(*arguments)
        if isinstance(reply, AsyncGenerator):
            sending = asyncio.ensure_future(_stream(reply, writer))
            leaving = asyncio.ensure_future(reader.read())
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait({sending, leaving})
        else:
            await send(writer, reply)
        writer.close()

    async with await asyncio.start_unix_server(answer, folder / name):
        print(READY, end="", flush=True)
        await asyncio.Event().wait()


async def _stream(frames: AsyncGenerator[Frame, None], writer: asyncio.StreamWriter) -> None:
    async with aclosing(frames):
        async for frame in frames:
            await send(writer, frame)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
