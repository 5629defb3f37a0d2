"""The state of the application: what all routes share."""

from collections.abc import Iterable
from typing import Self

from safelight import AsyncClient, Tls

from safelight_gateway.dialects.dialect import Dialect
from safelight_gateway.dialects.registry import DialectRegistry
from safelight_gateway.generation.generator import Generator
from safelight_gateway.generation.models import ModelDirectory
from safelight_gateway.settings import Settings, TargetTlsSettings
from safelight_gateway.stores.files import FileStore
from safelight_gateway.stores.jobs import JobStore


class AppState:
    """One connection to the service, and what is kept between requests.

    Attributes:
        settings: As read at start.
        dialects: The dialects that are spoken here.
        client: The client that all calls are made with; callers' tokens travel as metadata.
        models: The service's models and the operator's aliases.
        generator: Runs requests.
        files: Images that answers link to.
        jobs: Requests whose clients come back for the result.
    """

    def __init__(self, settings: Settings, dialects: Iterable[Dialect] = ()) -> None:
        """Open no connection yet; the client connects on its first call.

        Raises:
            OSError: a file of the settings cannot be read.
            ValueError: two dialects claim the same.
        """
        self.settings = settings
        self.dialects = DialectRegistry(dialects)
        self.client = AsyncClient(settings.target, tls=_tls(settings.target_tls))
        self.models = ModelDirectory(self.client, settings.aliases)
        self.generator = Generator(self.client, self.models, settings.max_request_s)
        self.files = FileStore(settings.files)
        self.jobs = JobStore(self.generator, settings.jobs)

    async def close(self) -> None:
        """Cancel what runs and close the connection."""
        await self.jobs.close()
        await self.client.close()

    async def __aenter__(self) -> Self:
        """Return the state itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()


def _tls(settings: TargetTlsSettings | None) -> bool | Tls:
    if settings is None:
        return False
    authorities, certificate, key = (
        path.read_bytes() if path is not None else None
        for path in (settings.authorities, settings.certificate, settings.private_key)
    )
    return Tls(root_certificates=authorities, private_key=key, certificate_chain=certificate)
