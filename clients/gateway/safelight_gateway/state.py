"""The application's state: the connections to the service, and the stores."""

from collections.abc import Iterable
from typing import Self

from safelight_gateway.calls.callers import Callers
from safelight_gateway.calls.channel_pool import ChannelPool
from safelight_gateway.dialects.dialect import Dialect
from safelight_gateway.dialects.registry import DialectRegistry
from safelight_gateway.generation.generator import Generator
from safelight_gateway.generation.models import ModelDirectory
from safelight_gateway.pace import Pace
from safelight_gateway.settings import Settings
from safelight_gateway.stores.files import FileStore
from safelight_gateway.stores.jobs import JobStore
from safelight_gateway.verification.verifier import Verifier


class AppState:
    """State that all routes share.

    Attributes:
        settings: Settings, read at start.
        dialects: Registry of the dialects.
        pool: Connections to the service. Tokens of callers travel as metadata.
        callers: Finds what a request counts for, and lends it a connection.
        event_pace: Pace of the events of each caller's streams.
        models: Models of the service, and the operator's aliases.
        adapter_aliases: Names of adapters by the operator's ids in lower case.
        generator: Runs requests.
        files: Images behind links.
        jobs: Requests that clients poll.
        verifier: Verifies images.
    """

    def __init__(self, settings: Settings, dialects: Iterable[Dialect] = ()) -> None:
        """Create the state; connections are made on the first calls.

        Raises:
            OSError: a file that the settings name cannot be read.
            ValueError: two dialects claim the same name, or the trust anchors cannot be used.
        """
        self.settings = settings
        self.dialects = DialectRegistry(dialects)
        self.pool = ChannelPool(settings)
        self.callers = Callers(self.pool)
        self.event_pace = Pace(settings.calls.events_per_s)
        self.models = ModelDirectory(self.callers, settings.aliases)
        self.adapter_aliases = {
            alias.lower(): name for alias, name in settings.adapter_aliases.items()
        }
        self.generator = Generator(self.callers, self.models, settings.max_request_s)
        self.files = FileStore(settings.files)
        self.jobs = JobStore(self.generator, settings.jobs)
        self.verifier = Verifier(settings.verification)

    async def close(self) -> None:
        """Cancel running jobs and close the connections."""
        self.verifier.close()
        await self.jobs.close()
        await self.pool.close()

    async def __aenter__(self) -> Self:
        """Return the state."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the state."""
        await self.close()
