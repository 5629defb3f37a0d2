"""The application's state: one connection to the service, and the stores."""

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
    """State that all routes share.

    Attributes:
        settings: Settings, read at start.
        dialects: Registry of the dialects.
        client: Client for all gRPC calls. Tokens of callers travel as metadata.
        models: Models of the service, and the operator's aliases.
        generator: Runs requests.
        files: Images behind links.
        jobs: Requests that clients poll.
    """

    def __init__(self, settings: Settings, dialects: Iterable[Dialect] = ()) -> None:
        """Create the state; the client connects on its first call.

        Raises:
            OSError: a file that the settings name cannot be read.
            ValueError: two dialects claim the same name.
        """
        self.settings = settings
        self.dialects = DialectRegistry(dialects)
        self.client = AsyncClient(settings.target, tls=_tls(settings.target_tls))
        self.models = ModelDirectory(self.client, settings.aliases)
        self.generator = Generator(self.client, self.models, settings.max_request_s)
        self.files = FileStore(settings.files)
        self.jobs = JobStore(self.generator, settings.jobs)

    async def close(self) -> None:
        """Cancel running jobs and close the connection."""
        await self.jobs.close()
        await self.client.close()

    async def __aenter__(self) -> Self:
        """Return the state."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the state."""
        await self.close()


def _tls(settings: TargetTlsSettings | None) -> bool | Tls:
    if settings is None:
        return False
    authorities, certificate, key = (
        path.read_bytes() if path is not None else None
        for path in (settings.authorities, settings.certificate, settings.private_key)
    )
    return Tls(root_certificates=authorities, private_key=key, certificate_chain=certificate)
