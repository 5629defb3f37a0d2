"""Generator: requests to a service in unusual states."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from safelight.v1 import text_to_image_pb2 as pb

from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.request import CallContext, ImageRequest
from safelight_gateway.generation.shape import Shape
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
        """Refuse a negative prompt, and a width of zero."""
        wrong = [name for name in ("negative_prompt", "width") if self._refuses(request, name)]
        if wrong:
            self.requests.append(request)
            violation = FieldViolation(f"parameters.{wrong[0]}", "is not supported")
            context.abort_with_status(to_status(InvalidRequestError([violation])))
        yield from super().Generate(request, context)

    def _refuses(self, request: pb.GenerateRequest, name: str) -> bool:
        is_sent = request.parameters.HasField(name)  # type: ignore[arg-type]
        return is_sent and (name != "width" or request.parameters.width == 0)


@pytest.mark.anyio
async def test_what_a_model_does_not_support_is_dropped_also_if_it_had_to_be_loaded_first() -> None:
    with LateService() as service:
        async with AppState(Settings(target=service.target)) as state:
            request = ImageRequest(prompt="x", model=(READY,), negative_prompt="blurry")
            result = await state.generator.run(request)
    assert result.ignored_fields == ("negative_prompt",)
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


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"shape": Shape(field="aspect_ratio", text="2:1", ratio=2.0)}, "width"),
        ({"scheduler": "Euler a"}, "scheduler"),
    ],
)
async def test_what_depends_on_a_model_waits_until_its_limits_are_known(
    wish: dict[str, Any], field: str
) -> None:
    with LateService() as service:
        limits = pb.ModelLimits(
            min_side_px=8, max_side_px=512, size_multiple_px=8, max_pixel_count=512 * 512
        )
        for model in service.models:
            model.capabilities.limits.CopyFrom(limits)
            model.capabilities.defaults.width = model.capabilities.defaults.height = 128
            model.capabilities.schedulers.add(
                name="EulerAncestralDiscreteScheduler", aliases=["euler_a"]
            )
        async with AppState(Settings(target=service.target)) as state:
            await state.generator.run(ImageRequest(prompt="x", model=(READY,), **wish))
    refused, made = (asked.parameters for asked in service.requests)
    assert refused.width == 0
    assert getattr(made, field) == {"width": 184, "scheduler": "euler_a"}[field]
