"""ListModels and GetModel, health and reflection."""

from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from support.running_service import RunningService, run_service

SERVICE = "safelight.v1.TextToImageService"


@pytest.fixture
def channel(service: RunningService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.target) as channel:
        yield channel


def test_the_list_describes_the_parameters_of_a_model(channel: grpc.Channel) -> None:
    models = pb_grpc.TextToImageServiceStub(channel).ListModels(pb.ListModelsRequest()).models
    assert [model.name for model in models] == ["shapes"]
    assert models[0].is_default
    assert models[0].state == pb.MODEL_STATE_READY
    capabilities = models[0].capabilities
    assert capabilities.pipeline_class == "StableDiffusionPipeline"
    assert capabilities.device_type == "cpu"
    assert "negative_prompt" in capabilities.supported_parameters
    assert capabilities.limits.size_multiple_px == 8
    aliases = {alias for scheduler in capabilities.schedulers for alias in scheduler.aliases}
    assert {"euler", "euler_a", "ddim", "dpm++_2m", "unipc", "lcm"} <= aliases


def test_one_model_is_had_by_its_name_or_as_the_default(channel: grpc.Channel) -> None:
    stub = pb_grpc.TextToImageServiceStub(channel)
    by_name = stub.GetModel(pb.GetModelRequest(model="shapes"))
    assert stub.GetModel(pb.GetModelRequest()) == by_name


def test_an_unknown_model_is_not_found(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        pb_grpc.TextToImageServiceStub(channel).GetModel(pb.GetModelRequest(model="../x"))
    assert isinstance(raised.value, grpc.Call)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("service_name", ["", SERVICE])
def test_health_says_serving_for_the_server_and_for_the_service(
    service_name: str, channel: grpc.Channel
) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    response = stub.Check(health_pb2.HealthCheckRequest(service=service_name))
    assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="x"))
    assert isinstance(raised.value, grpc.Call)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


def test_reflection_gives_the_contract(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert SERVICE in database.get_services()
    described = DescriptorPool(database).FindServiceByName(SERVICE)
    ours = pb.DESCRIPTOR.services_by_name["TextToImageService"]
    assert [method.name for method in described.methods] == [method.name for method in ours.methods]


def test_reflection_can_be_closed() -> None:
    models = '[{"name": "lazy", "source": "shapes", "preload": false}]'
    with (
        run_service(models=models, reflection="false") as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        with pytest.raises(grpc.RpcError) as raised:
            ProtoReflectionDescriptorDatabase(channel).get_services()
        assert isinstance(raised.value, grpc.Call)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
