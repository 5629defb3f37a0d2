"""Messages: pickled values between a pool and its engine processes, and the files they share."""

import asyncio
import pickle
from typing import Any

SETTINGS, FORWARDS = "settings.pickle", "forwards"
"""Files of a pool: the settings of its engines, and a byte for each forward of their denoisers."""
READY = "ready\n"
"""Line on standard output, after those of the log."""
_SIZE_BYTES = 4


async def send(writer: asyncio.StreamWriter, value: object) -> None:
    """Send a value.

    Raises:
        OSError: the other side is gone.
    """
    data = pickle.dumps(value)
    writer.write(len(data).to_bytes(_SIZE_BYTES, "big") + data)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> Any:
    """Receive a value.

    Raises:
        EOFError, OSError: the other side is gone.
    """
    size = int.from_bytes(await reader.readexactly(_SIZE_BYTES), "big")
    return pickle.loads(await reader.readexactly(size))
