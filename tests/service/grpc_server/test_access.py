"""Access by token: calls, visible models and quotas."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.auth.tokens import digest_token
from support.generation_stream import kinds
from support.running_service import RunningService, run_service
from tests.service.grpc_server.h2_client import H2Client

SERVICE = "safelight.v1.TextToImageService"
CANARY = "the-token-is-a-secret"
TOKENS = {
    "full": "",
    "toys_only": 'models = ["toys"]',
    "two_a_minute": "requests_per_minute = 2",
    "one_at_a_time": "concurrent = 1",
    "leaves": "",
}
MODELS = json.dumps([{"name": name, "source": "shapes"} for name in ("shapes", "toys")])
REFUSAL = "send a token of this service as authorization: Bearer TOKEN"


def token(name: str) -> str:
    return f"{CANARY}-of-{name}"


def bearer(name: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {token(name)}"),)


def entry(name: str, secret: str) -> str:
    return f'[[tokens]]\nname = "{name}"\nsha256 = "{digest_token(secret)}"\n{TOKENS[name]}\n'


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("access") / "tokens.toml"
    file.write_text("".join(entry(name, token(name)) for name in TOKENS))
    return file


@pytest.fixture(scope="module")
def guarded(tokens_file: Path) -> Iterator[RunningService]:
    with run_service(models=MODELS, tokens_file=str(tokens_file), log_level="debug") as running:
        yield running


@pytest.fixture
def channel(guarded: RunningService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(guarded.target) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> pb_grpc.TextToImageServiceStub:
    return pb_grpc.TextToImageServiceStub(channel)


def request(model: str = "", step_count: int = 1) -> pb.GenerateRequest:
    parameters = pb.TextToImageParameters(num_inference_steps=step_count, width=64, height=64)
    return pb.GenerateRequest(inputs="a red circle", parameters=parameters, model=model)


def call(channel: Any, method: str, metadata: Any) -> None:
    """Call any kind of method, and read its responses to the end."""
    stub = pb_grpc.TextToImageServiceStub(channel)
    match method:
        case "Generate":
            list(stub.Generate(request(), metadata=metadata))
        case "ListModels":
            stub.ListModels(pb.ListModelsRequest(), metadata=metadata)
        case "ServerReflectionInfo":
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            list(reflection.ServerReflectionInfo(iter([asked]), metadata=metadata))
        case "Unknown":
            channel.unary_unary(f"/{SERVICE}/Unknown")(b"", metadata=metadata)


METHODS = pytest.mark.parametrize(
    "method", ["Generate", "ListModels", "ServerReflectionInfo", "Unknown"]
)


def status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str, status_pb2.Status]:
    """Return the code, the reason and the rich status."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return error.code(), info.reason, status


def assert_unauthenticated(channel: grpc.Channel, method: str, metadata: Any) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, method, metadata)
    code, reason, status = status_of(raised.value)
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert status.message == REFUSAL


@METHODS
@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["Bearer"],
        ["Bearer "],
        [token("full")],
        [f"Basic {token('full')}"],
        [f"Bearer {token('full')} {token('full')}"],
        [f"Bearer {token('full')}"] * 2,
    ],
    ids=["none", "empty", "scheme only", "blank", "no scheme", "basic", "two tokens", "twice"],
)
def test_a_call_without_one_bearer_token_is_refused(
    values: list[str], method: str, channel: grpc.Channel
) -> None:
    """Fault 1: UNAUTHENTICATED."""
    assert_unauthenticated(channel, method, [("authorization", value) for value in values])


def test_a_refused_generation_is_not_queued(stub: pb_grpc.TextToImageServiceStub) -> None:
    """Fault 1: nothing is queued."""
    refused = stub.Generate(request(step_count=150))
    with pytest.raises(grpc.RpcError):
        next(refused)
    assert "queued" not in kinds(stub.Generate(request(), metadata=bearer("full")))


@METHODS
@pytest.mark.parametrize(
    "wrong",
    [token("fulk"), token("full")[:-1], token("full") + "x", token("full").upper(), "x" * 8192],
    ids=["same length", "prefix", "longer", "capitals", "8 KB"],
)
def test_a_wrong_token_is_refused_with_the_same_text(
    wrong: str, method: str, channel: grpc.Channel
) -> None:
    """Fault 2: UNAUTHENTICATED, same text."""
    assert_unauthenticated(channel, method, [("authorization", f"Bearer {wrong}")])


@pytest.mark.parametrize("wrong", [b"\xff\xfe", "é".encode(), token("full").encode() + b"\xa0"])
def test_a_token_beyond_ascii_is_refused_with_the_same_text(
    wrong: bytes, guarded: RunningService
) -> None:
    """Fault 2: non-ASCII tokens, which gRPC's own clients do not send."""
    with H2Client(guarded.target) as raw:
        stream = raw.call("ListModels", pb.ListModelsRequest(), authorization=b"Bearer " + wrong)
        metadata = raw.read_metadata(stream)
    assert metadata["grpc-status"] == str(grpc.StatusCode.UNAUTHENTICATED.value[0])
    assert metadata["grpc-message"] == REFUSAL


@METHODS
def test_metadata_beyond_16_kib_is_refused(method: str, channel: grpc.Channel) -> None:
    """Fault 3: RESOURCE_EXHAUSTED, by gRPC's core."""
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, method, [*bearer("full"), ("x-long", "x" * 17 * 1024)])
    assert isinstance(raised.value, grpc.Call)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_metadata_below_16_kib_is_never_refused(stub: pb_grpc.TextToImageServiceStub) -> None:
    """Fault 3: by default, gRPC refuses metadata above 8 KiB at random."""
    metadata = (*bearer("full"), ("x-long", "x" * 15 * 1024))
    for _ in range(20):
        stub.ListModels(pb.ListModelsRequest(), metadata=metadata)


@pytest.mark.parametrize(
    "form", ["Bearer {}", "Bearer: {}", "bearer {}", "BEARER:  {}", " Bearer {} "]
)
def test_a_token_is_taken_as_grpc_and_as_hugging_face_write_it(
    form: str, stub: pb_grpc.TextToImageServiceStub
) -> None:
    metadata = (("authorization", form.format(token("full"))),)
    assert len(stub.ListModels(pb.ListModelsRequest(), metadata=metadata).models) == 2


def test_health_needs_no_token(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    response = health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_is_for_callers_with_a_token(channel: grpc.Channel) -> None:
    call(channel, "ServerReflectionInfo", bearer("full"))


@pytest.mark.parametrize("model", ["", "shapes", "nope", "../x", "https://example.org/x"])
def test_a_model_that_the_token_does_not_allow_is_refused(
    model: str, stub: pb_grpc.TextToImageServiceStub
) -> None:
    """Fault 8: served or not, or the default model; the error does not list other models."""
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request(model), metadata=bearer("toys_only")))
    code, reason, status = status_of(raised.value)
    assert (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, "MODEL_FORBIDDEN")
    assert status.message.endswith(f"{model or 'shapes'!r}; choose one of: toys")


@pytest.mark.parametrize("model", ["nope", "../x", "https://example.org/x"])
def test_a_model_that_is_not_served_is_not_found(
    model: str, stub: pb_grpc.TextToImageServiceStub
) -> None:
    """Fault 8: NOT_FOUND."""
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request(model), metadata=bearer("full")))
    assert status_of(raised.value)[:2] == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")


def test_a_model_that_the_token_allows_is_used(stub: pb_grpc.TextToImageServiceStub) -> None:
    responses = stub.Generate(request("toys"), metadata=bearer("toys_only"))
    assert kinds(responses)[-1] == "completed"


def test_the_list_shows_only_the_models_that_the_token_allows(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    models = stub.ListModels(pb.ListModelsRequest(), metadata=bearer("toys_only")).models
    assert [model.name for model in models] == ["toys"]


@pytest.mark.parametrize("model", ["", "shapes", "nope"])
def test_another_model_does_not_exist_for_the_token(
    model: str, stub: pb_grpc.TextToImageServiceStub
) -> None:
    """Fault 8: NOT_FOUND."""
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetModel(pb.GetModelRequest(model=model), metadata=bearer("toys_only"))
    code, reason, status = status_of(raised.value)
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert status.message.endswith("is not served; choose one of: toys")


def test_a_token_over_its_rate_is_refused_and_no_other(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    """Fault 29: RESOURCE_EXHAUSTED with QuotaFailure; the other token OK."""
    for _ in range(2):
        list(stub.Generate(request(), metadata=bearer("two_a_minute")))
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request(), metadata=bearer("two_a_minute")))
    code, reason, status = status_of(raised.value)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    quota, retry = error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(quota)
    assert quota.violations[0].subject == "token:two_a_minute"
    assert status.details[2].Unpack(retry)
    assert 0 < retry.retry_delay.ToNanoseconds() <= 60e9
    stub.ListModels(pb.ListModelsRequest(), metadata=bearer("two_a_minute"))
    list(stub.Generate(request(), metadata=bearer("full")))


def test_a_token_runs_only_as_many_generations_as_it_may_and_others_go_on(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    running = stub.Generate(request(step_count=20), metadata=bearer("one_at_a_time"))
    next(running)
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request(), metadata=bearer("one_at_a_time")))
    code, reason, status = status_of(raised.value)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_GENERATIONS")
    assert status.details[1].Is(error_details_pb2.QuotaFailure.DESCRIPTOR)
    list(stub.Generate(request(), metadata=bearer("full")))
    list(running)
    list(stub.Generate(request(), metadata=bearer("one_at_a_time")))


def test_what_lingers_counts_as_running(stub: pb_grpc.TextToImageServiceStub) -> None:
    lingering = request(step_count=20)
    lingering.generation_id = "lingering"
    lingering.linger.FromSeconds(60)
    left = stub.Generate(lingering, metadata=bearer("one_at_a_time"))
    next(left)
    left.cancel()
    with pytest.raises(grpc.RpcError) as raised:
        list(stub.Generate(request(), metadata=bearer("one_at_a_time")))
    assert status_of(raised.value)[1] == "TOO_MANY_GENERATIONS"
    # Rejoining it starts no generation.
    back = stub.Generate(lingering, metadata=bearer("one_at_a_time"))
    assert kinds(back)[-1] == "completed"


def test_a_generation_is_that_of_its_token(stub: pb_grpc.TextToImageServiceStub) -> None:
    mine = request(step_count=4)
    mine.generation_id = "mine"
    first = list(stub.Generate(mine, metadata=bearer("full")))
    watch = pb.WatchGenerationRequest(generation_id="mine")
    cancel = pb.CancelGenerationRequest(generation_id="mine")
    for ask in (
        lambda: list(stub.WatchGeneration(watch, metadata=bearer("one_at_a_time"))),
        lambda: stub.CancelGeneration(cancel, metadata=bearer("one_at_a_time")),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            ask()
        assert status_of(raised.value)[1] == "GENERATION_NOT_FOUND"
    mine.inputs = "a blue star"  # the same id, but another generation
    other = list(stub.Generate(mine, metadata=bearer("one_at_a_time")))
    assert kinds(other)[-1] == "completed"
    seeds = {responses[0].event.accepted.parameters.seed for responses in (first, other)}
    assert len(seeds) == 2


def test_a_cancelled_generation_no_longer_counts_as_running(
    stub: pb_grpc.TextToImageServiceStub,
) -> None:
    running = stub.Generate(request(step_count=150), metadata=bearer("one_at_a_time"))
    next(running)
    running.cancel()
    while True:
        try:
            list(stub.Generate(request(), metadata=bearer("one_at_a_time")))
        except grpc.RpcError as error:
            if status_of(error)[1] != "TOO_MANY_GENERATIONS":
                raise
        else:
            return


def test_a_token_that_leaves_the_file_loses_its_calls_and_its_generations(
    stub: pb_grpc.TextToImageServiceStub, tokens_file: Path
) -> None:
    long = request(step_count=150)
    long.image_count, long.generation_id = 8, "long"
    long.linger.FromSeconds(600)
    watch = pb.WatchGenerationRequest(generation_id="long")
    calls: list[Any] = [stub.Generate(long, metadata=bearer("leaves"))]
    next(calls[0])
    calls.append(stub.WatchGeneration(watch, metadata=bearer("leaves")))
    next(calls[1])
    others = "".join(entry(name, token(name)) for name in TOKENS if name != "leaves")
    tokens_file.write_text(others)
    for ended in calls:
        with pytest.raises(grpc.RpcError) as raised:
            list(ended)
        assert status_of(raised.value)[:2] == (
            grpc.StatusCode.UNAUTHENTICATED,
            "UNAUTHENTICATED",
        )
    # Another token that gets the name finds nothing of the former one.
    tokens_file.write_text(others + entry("leaves", "another-secret"))
    renewed = (("authorization", "Bearer another-secret"),)
    while True:
        with pytest.raises(grpc.RpcError) as raised:
            list(stub.WatchGeneration(watch, metadata=renewed))
        if status_of(raised.value)[1] != "UNAUTHENTICATED":
            break
    assert status_of(raised.value)[1] == "GENERATION_NOT_FOUND"


def test_no_token_is_in_a_log_line_or_a_status(
    channel: grpc.Channel, guarded: RunningService
) -> None:
    for metadata in (bearer("toys_only"), bearer("nobody"), bearer("full") * 2):
        for method in ("Generate", "Unknown"):
            with pytest.raises(grpc.RpcError) as raised:
                call(channel, method, metadata)
            assert CANARY not in str(raised.value)
    log = guarded.read_log()
    assert "model_loaded" in log
    assert CANARY not in log
