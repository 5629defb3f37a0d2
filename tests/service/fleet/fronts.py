"""Fronts: services of this process, each with a sleeping engine of its own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from safelight import AsyncClient

from safelight_service.grpc_server.server import Server
from safelight_service.settings import CacheSettings, FleetSettings, GenerationSettings, Settings
from support.fleet.sleeping_engine import SleepingEngine


@dataclass(frozen=True)
class Front:
    """A running service, its engine and a client of it."""

    server: Server
    engine: SleepingEngine
    client: AsyncClient


@asynccontextmanager
async def open_fronts(
    redis_url: str,
    count: int = 2,
    tokens_file: Path | None = None,
    token: str | None = None,
    *,
    shares_results: bool = False,
    trusted_proxies: tuple[str, ...] = (),
    max_watches: int = 100,
) -> AsyncIterator[tuple[Front, ...]]:
    """Start services that share a Redis server."""
    async with AsyncExitStack() as stack:
        fronts = []
        for _ in range(count):
            engine = SleepingEngine(step_s=0.005)
            settings = Settings(
                listen="127.0.0.1:0",
                tokens_file=tokens_file,
                grace_s=0,
                trusted_proxies=trusted_proxies,
                generations=GenerationSettings(max_watches=max_watches),
                cache=CacheSettings.model_validate(
                    {"redis_url": redis_url} if shares_results else {}
                ),
                fleet=FleetSettings.model_validate({"redis_url": redis_url, "lease_s": 1.0}),
            )
            server = await stack.enter_async_context(
                Server(settings, lambda _, engine=engine: engine)  # type: ignore[misc]
            )
            client = await stack.enter_async_context(AsyncClient(server.address, token=token))
            fronts.append(Front(server, engine, client))
        yield tuple(fronts)


def started(*fronts: Front) -> list[list[str]]:
    """Return the ids of the generations that each front has run."""
    return [front.engine.started for front in fronts]
