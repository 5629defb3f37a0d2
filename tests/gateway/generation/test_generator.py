"""Generator: requests to a service in unusual states."""

from collections.abc import Iterator

import grpc
import pytest
from safelight.v1 import text_to_image_pb2 as pb

from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.request import CallContext, ImageRequest
from safelight_gateway.settings import Settings
from safelight_gateway.state import AppState
from safelight_service.core.errors import FieldViolation, InvalidRequestError
from safelight_service.grpc_server.status import to_status
from tests.gateway.failing_service import ENDLESS, READY, FailingService


class LateService(FailingService):
    """Reports a model's capabilities only after the first request for it, as while it loads."""

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """List the models."""
        response = super().ListModels(request, context)
        if not self.requests:
            for model in response.models:
                model.ClearField("capabilities")
        return response

    def Generate(
        self, request: pb.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateResponse]:
        """Refuse a negative prompt."""
        if request.parameters.HasField("negative_prompt"):
            self.requests.append(request)
            violation = FieldViolation("parameters.negative_prompt", "is not supported")
            context.abort_with_status(to_status(InvalidRequestError([violation])))
        yield from super().Generate(request, context)


@pytest.mark.anyio
async def test_what_a_model_does_not_support_is_dropped_also_if_it_had_to_be_loaded_first() -> None:
    with LateService() as service:
        async with AppState(Settings(target=service.target)) as state:
            request = ImageRequest(prompt="x", model=(READY,), negative_prompt="blurry")
            result = await state.generator.run(request)
    assert result.ignored_parameters == ("negative_prompt",)
    assert result.compute_type == "gpu"
    sent = [asked.parameters.HasField("negative_prompt") for asked in service.requests]
    assert sent == [True, False]


@pytest.mark.anyio
async def test_service_that_cannot_be_reached_is_503_without_its_address() -> None:
    async with AppState(Settings(target="127.0.0.1:1")) as state:
        with pytest.raises(GatewayError) as raised:
            await state.generator.run(ImageRequest(prompt="x"))
    assert (raised.value.status, raised.value.reason) == (503, "SERVICE_UNAVAILABLE")
    assert "127.0.0.1" not in raised.value.message


@pytest.mark.anyio
async def test_passed_deadline_is_504(failing_service: FailingService) -> None:
    async with AppState(Settings(target=failing_service.target)) as state:
        context = CallContext(deadline_s=0.0)
        with pytest.raises(GatewayError) as raised:
            await state.generator.run(ImageRequest(prompt="x", model=(ENDLESS,), context=context))
    assert raised.value.status == 504
