"""The generator: runs image requests over gRPC."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from safelight import (
    AsyncGeneration,
    Completed,
    Event,
    InvalidRequestError,
    Preview,
    SafelightError,
)

from safelight_gateway.calls.callers import Callers
from safelight_gateway.errors import GatewayError, from_service
from safelight_gateway.generation.models import ModelDirectory
from safelight_gateway.generation.preparation import PreparedRequest
from safelight_gateway.generation.request import ImageRequest, ImageResult


class Generator:
    """Runs image requests on the service."""

    def __init__(self, callers: Callers, models: ModelDirectory, longest_s: float) -> None:
        self._callers = callers
        self._models = models
        self._longest_s = longest_s

    def start(self, request: ImageRequest) -> "GenerationRun":
        """Return a run; it starts when its events are iterated."""
        return GenerationRun(self, request)

    async def run(self, request: ImageRequest) -> ImageResult:
        """Generate all images. Cancelling the task cancels the generation.

        Raises:
            GatewayError: the generation failed.
        """
        run = self.start(request)
        async with aclosing(run.events()) as events:
            async for _ in events:
                pass
        return run.result

    async def _prepare(self, request: ImageRequest) -> PreparedRequest:
        model = await self._models.find(request.model, request.context)
        return PreparedRequest.of(request, model)

    @asynccontextmanager
    async def _call(self, prepared: PreparedRequest) -> AsyncIterator[AsyncGeneration]:
        request = prepared.request
        async with self._callers.lease(request.context) as client:
            options = prepared.options(request.context.timeout_s(self._longest_s))
            try:
                call = client.generate(request.prompt, **options)
            except (TypeError, ValueError, OverflowError) as error:
                raise GatewayError(422, str(error), "INVALID_REQUEST") from error
            async with call as generation:
                yield generation


class GenerationRun:
    """One run of a request: a stream of events, then a result."""

    def __init__(self, generator: Generator, request: ImageRequest) -> None:
        self._generator = generator
        self._request = request
        self._result: ImageResult | None = None
        self._ignored: tuple[str, ...] = ()

    @property
    def ignored_fields(self) -> tuple[str, ...]:
        """Names of sent fields without effect; available after the first event."""
        return self._ignored

    @property
    def result(self) -> ImageResult:
        """The result; available after the last event."""
        assert self._result is not None
        return self._result

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield the events. Closing the iterator early cancels the generation.

        Raises:
            GatewayError: the generation failed.
        """
        try:
            prepared = await self._generator._prepare(self._request)
            try:
                async with aclosing(self._events_of(prepared)) as events:
                    async for event in events:
                        yield event
            except InvalidRequestError:
                # A model that was not loaded before may support fewer parameters than assumed.
                known = await self._generator._prepare(self._request)
                if known.request == prepared.request:
                    raise
                async with aclosing(self._events_of(known)) as events:
                    async for event in events:
                        yield event
        except SafelightError as error:
            raise self._request.field_names.rename(from_service(error)) from error

    async def _events_of(self, prepared: PreparedRequest) -> AsyncGenerator[Event, None]:
        self._ignored = prepared.ignored
        shown_counts: dict[int, int] = {}
        async with self._generator._call(prepared) as generation:
            async for event in generation:
                if isinstance(event, Preview):
                    count = shown_counts.get(event.image_index, 0)
                    if not prepared.shows(event.step, count):
                        continue
                    shown_counts[event.image_index] = count + 1
                if isinstance(event, Completed):
                    if prepared.model.capabilities is None:  # known now that the model is loaded
                        prepared = await self._generator._prepare(self._request)
                    self._result = prepared.result(await generation.images(), event)
                yield event
