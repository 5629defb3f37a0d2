"""The servicer: each RPC converts, calls the core, and converts back."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.engine import Engine
from safelight_service.server import convert
from safelight_service.server.metadata import parse_flag

Context = grpc.aio.ServicerContext[Any, Any]


class TextToImageServicer(pb_grpc.TextToImageServiceServicer):
    """Serves the contract from an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Stream a generation's events."""
        metadata = context.invocation_metadata() or ()
        waits = parse_flag(metadata, "x-wait-for-model", default=False)
        generation = convert.from_generate_request(request, waits_for_model=waits)
        async with aclosing(self._engine.generate(generation)) as events:
            async for event in events:
                for response in convert.to_generate_responses(event):
                    yield response

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """List the models."""
        return pb.ListModelsResponse(
            models=[convert.to_model(model) for model in self._engine.list_models()]
        )

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describe one model."""
        return pb.GetModelResponse(model=convert.to_model(self._engine.get_model(request.model)))
