"""Sleeping service: a service with a local sleeping engine, to compare a fleet with.

`python -m support.fleet.sleeping_service STEP_S WIDTH` prints its address first.
"""

import asyncio
import sys

from safelight_service.grpc_server.server import Server
from safelight_service.logs import configure_logs
from support.fleet.sleeping_engine import SleepingEngine, sleeping_settings


async def main(step_s: float, width: int) -> None:
    """Serve until killed."""
    engine = SleepingEngine(step_s, width)
    settings = sleeping_settings().model_copy(update={"log_level": "error"})
    configure_logs(settings)
    async with Server(settings, lambda _: engine) as server:
        print(server.address, flush=True)
        await server.wait_until_lost()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]), int(sys.argv[2])))
