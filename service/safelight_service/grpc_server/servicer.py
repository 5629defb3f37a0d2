"""The servicer: each RPC converts, calls the core, and converts back."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.auth.tokens import current_caller
from safelight_service.core.backend import Backend
from safelight_service.core.errors import ModelNotFoundError
from safelight_service.core.events import Completed, Event, Image
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.generations.generations import Generations
from safelight_service.grpc_server import convert
from safelight_service.grpc_server.metadata import parse_flag
from safelight_service.grpc_server.tenants import find_tenant
from safelight_settings import TrustedProxies

Context = grpc.aio.ServicerContext[Any, Any]

_NO_PROXIES = TrustedProxies()


class TextToImageServicer(pb_grpc.TextToImageServiceServicer):
    """Serves the contract from a backend and its generations."""

    def __init__(
        self,
        backend: Backend,
        generations: Generations,
        observer: Observer = NULL_OBSERVER,
        proxies: TrustedProxies = _NO_PROXIES,
    ) -> None:
        self._proxies = proxies
        self._backend = backend
        self._generations = generations
        self._observer = observer

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Start a generation or join it, and stream its events."""
        metadata = context.invocation_metadata() or ()
        generation = convert.from_generate_request(
            request,
            waits_for_model=parse_flag(metadata, "x-wait-for-model", default=False),
            uses_cache=parse_flag(metadata, "x-use-cache", default=True),
            time_left_s=context.time_remaining(),
            tenant=find_tenant(current_caller.get(), context.peer(), metadata, self._proxies),
        )
        async with aclosing(self._generations.generate(generation)) as events:
            async for event in events:
                _report_cache(event, context)
                began_at = time.monotonic()
                for message in convert.to_generation_events(event):
                    yield pb.GenerateResponse(event=message)
                if isinstance(event, Image):
                    self._observer.image_sent(event, began_at)

    async def WatchGeneration(
        self, request: pb.WatchGenerationRequest, context: Context
    ) -> AsyncGenerator[pb.WatchGenerationResponse, None]:
        """Join a generation, and stream its events."""
        metadata = context.invocation_metadata() or ()
        tenant = find_tenant(current_caller.get(), context.peer(), metadata, self._proxies)
        async with aclosing(self._generations.watch(request.generation_id, tenant)) as events:
            async for event in events:
                _report_cache(event, context)
                began_at = time.monotonic()
                for message in convert.to_generation_events(event):
                    yield pb.WatchGenerationResponse(event=message)
                if isinstance(event, Image):
                    self._observer.image_sent(event, began_at)

    async def CancelGeneration(
        self, request: pb.CancelGenerationRequest, context: Context
    ) -> pb.CancelGenerationResponse:
        """Cancel a generation."""
        return convert.to_cancel_response(self._generations.cancel(request.generation_id))

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """List the models."""
        caller = current_caller.get()
        return pb.ListModelsResponse(
            models=[
                convert.to_model(model)
                for model in self._backend.list_models()
                if caller is None or caller.may_use(model.name)
            ]
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describe one model."""
        caller = current_caller.get()
        name = request.model or self._backend.default_model
        if caller is not None and not caller.may_use(name):
            raise ModelNotFoundError(name, caller.models or ())
        return pb.GetModelResponse(model=convert.to_model(self._backend.get_model(name)))


def _report_cache(event: Event, context: Context) -> None:
    """Report the use of the cache in the trailing metadata."""
    if isinstance(event, Completed):
        context.set_trailing_metadata((("x-cache", event.cache.value),))
