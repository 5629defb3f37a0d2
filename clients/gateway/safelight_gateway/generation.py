"""Generation: the one internal request, and how it is run over gRPC."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

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
from safelight_gateway.models import ModelDirectory

_PARAMETERS = (
    "guidance_scale",
    "negative_prompt",
    "num_inference_steps",
    "width",
    "height",
    "scheduler",
    "seed",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """What travels beside a request.

    Attributes:
        credential: Token of the service; None where the caller sent none.
        metadata: More metadata for the service: the trace's and the request's ids.
        deadline_s: Monotonic time at which the caller has no more use for an answer.
    """

    credential: str | None = field(default=None, repr=False)
    metadata: tuple[tuple[str, str], ...] = ()
    deadline_s: float | None = None

    @property
    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """All metadata of a gRPC call, the credential included."""
        authorization = (("authorization", f"Bearer {self.credential}"),) if self.credential else ()
        return (*authorization, *self.metadata)

    def timeout_s(self, longest_s: float) -> float:
        """Return the seconds that are left, at most `longest_s`."""
        if self.deadline_s is None:
            return longest_s
        return min(longest_s, max(0.0, self.deadline_s - time.monotonic()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """What is asked for, whatever the dialect; None is left to the model.

    Attributes:
        prompt: What to draw.
        model: Id of the model as the caller wrote it; empty for the default one. Of several
            spellings the first that is known counts.
        count: Number of images.
        output_mime_type: image/png, image/jpeg or image/webp.
        output_quality: Of JPEG and WebP, from 1 to 100.
        use_cache: Whether an equal earlier request may answer it.
        wait_for_model: Whether to wait for a model that is not in memory.
        unknown_parameters: Names that the caller sent and that mean nothing here.
        context: Who asks, until when, and as part of which trace.
    """

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    seed: int | None = None
    count: int = 1
    model: tuple[str, ...] = ()
    output_mime_type: str = "image/png"
    output_quality: int | None = None
    use_cache: bool = True
    wait_for_model: bool = True
    unknown_parameters: tuple[str, ...] = ()
    context: CallContext = CallContext()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """What came of a request.

    Attributes:
        images: At least one.
        model: Name of the model that was used.
        compute_s: Seconds on the device.
        compute_type: What it was made on: cpu or gpu; cache, if it was made before.
        ignored_parameters: Parameters that were sent and had no effect.
    """

    images: tuple[Image, ...]
    model: str
    compute_s: float
    compute_type: str
    ignored_parameters: tuple[str, ...]

    @property
    def seed(self) -> int:
        """Seed of the first image."""
        return self.images[0].seed


class Generator:
    """Runs requests on the service."""

    def __init__(self, client: AsyncClient, models: ModelDirectory, longest_s: float) -> None:
        self._client = client
        self._models = models
        self._longest_s = longest_s

    def start(self, request: ImageRequest) -> "GenerationRun":
        """Return a run, which starts when its events are iterated."""
        return GenerationRun(self, request)

    async def run(self, request: ImageRequest) -> ImageResult:
        """Generate all images; cancelling the task cancels the generation.

        Raises:
            GatewayError: nothing came of it.
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
    """One run of a request: its events, and in the end its result."""

    def __init__(self, generator: Generator, request: ImageRequest) -> None:
        self._generator = generator
        self._request = request
        self._result: ImageResult | None = None

    @property
    def result(self) -> ImageResult:
        """What came of it, after the last event."""
        assert self._result is not None
        return self._result

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield the events to the end; leaving early cancels the generation.

        Raises:
            GatewayError: nothing came of it.
        """
        try:
            prepared = await self._generator._prepare(self._request)
            try:
                async with aclosing(self._events_of(prepared)) as events:
                    async for event in events:
                        yield event
            except InvalidRequestError:
                # What a model takes is known once it has been loaded.
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
                    if prepared.model.capabilities is None:  # they are known by now
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
