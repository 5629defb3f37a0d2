"""The generator: runs image requests over gRPC."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from safelight import (
    AsyncClient,
    AsyncGeneration,
    CacheStatus,
    Completed,
    Event,
    Image,
    InvalidRequestError,
    Model,
    SafelightError,
)

from safelight_gateway.errors import GatewayError, from_service
from safelight_gateway.generation.models import ModelDirectory
from safelight_gateway.generation.request import ImageRequest, ImageResult

_PARAMETERS = (
    "guidance_scale",
    "negative_prompt",
    "num_inference_steps",
    "width",
    "height",
    "scheduler",
    "seed",
)


class Generator:
    """Runs image requests on the service."""

    def __init__(self, client: AsyncClient, models: ModelDirectory, longest_s: float) -> None:
        self._client = client
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

    async def _prepare(self, request: ImageRequest) -> "_Prepared":
        model = await self._models.find(request.model, request.context.call_metadata)
        return _Prepared.of(request, model)

    def _call(self, prepared: "_Prepared") -> AsyncGeneration:
        request = prepared.request
        return self._client.generate(
            request.prompt,
            model=prepared.model.name,
            guidance_scale=request.guidance_scale,
            negative_prompt=request.negative_prompt,
            num_inference_steps=request.num_inference_steps,
            width=request.width,
            height=request.height,
            scheduler=request.scheduler,
            seed=request.seed,
            image_count=request.count,
            output_mime_type=request.output_mime_type,
            output_quality=request.output_quality,
            use_cache=request.use_cache,
            wait_for_model=request.wait_for_model,
            timeout=request.context.timeout_s(self._longest_s),
            metadata=request.context.call_metadata,
        )


class GenerationRun:
    """One run of a request: a stream of events, then a result."""

    def __init__(self, generator: Generator, request: ImageRequest) -> None:
        self._generator = generator
        self._request = request
        self._result: ImageResult | None = None

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
                if known.ignored == prepared.ignored:
                    raise
                async with aclosing(self._events_of(known)) as events:
                    async for event in events:
                        yield event
        except SafelightError as error:
            raise from_service(error) from error

    async def _events_of(self, prepared: "_Prepared") -> AsyncGenerator[Event, None]:
        try:
            call = self._generator._call(prepared)
        except (TypeError, ValueError, OverflowError) as error:
            raise GatewayError(422, str(error), "INVALID_REQUEST") from error
        async with call as generation:
            async for event in generation:
                if isinstance(event, Completed):
                    if prepared.model.capabilities is None:  # known now that the model is loaded
                        prepared = await self._generator._prepare(self._request)
                    self._result = prepared.result(await generation.images(), event)
                yield event


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A request that names a served model, and nothing that the model does not support."""

    request: ImageRequest
    model: Model
    ignored: tuple[str, ...]

    @classmethod
    def of(cls, request: ImageRequest, model: Model) -> "_Prepared":
        capabilities = model.capabilities
        dropped: list[str] = []
        if capabilities is not None:
            dropped = [
                name
                for name in _PARAMETERS
                if name not in capabilities.supported_parameters
                and getattr(request, name) is not None
            ]
        return cls(
            replace(request, **dict.fromkeys(dropped)),  # type: ignore[arg-type]
            model,
            (*dropped, *request.unknown_parameters),
        )

    @property
    def _device_type(self) -> str:
        capabilities = self.model.capabilities
        return "cpu" if capabilities is not None and capabilities.device_type == "cpu" else "gpu"

    def result(self, images: Sequence[Image], completed: Completed) -> ImageResult:
        timings = completed.timings
        is_cached = completed.cache is CacheStatus.HIT
        phases = (timings.text_encode_s, timings.denoise_s, timings.decode_s)
        return ImageResult(
            images=tuple(images),
            model=self.model.name,
            compute_s=timings.total_s if is_cached else sum(phases) + timings.image_encode_s,
            compute_type="cache" if is_cached else self._device_type,
            ignored_parameters=self.ignored,
        )
