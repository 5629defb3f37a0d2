"""Faults in a handler: callers get a rich status without internal details."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
import torch
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.core.errors import QueueFullError
from safelight_service.core.observer import Observer
from safelight_service.engine import Engine
from safelight_service.grpc_server.drain import OngoingCalls
from safelight_service.grpc_server.interceptors.errors import FaultInterceptor
from safelight_service.grpc_server.server import Server
from safelight_service.settings import Settings
from support.engine.job_runs import SMALL
from support.engine.tiny_models import MERGING, TinyModels
from support.generation_stream import kinds
from tests.service.grpc_server.failures import NON_FINITE_IMAGE, OUT_OF_MEMORY, read_failure

SECRET = "the-prompt-is-a-secret"
SERVICE = "safelight.v1.TextToImageService"


async def cancel_an_inner_task() -> None:
    inner = asyncio.ensure_future(asyncio.sleep(60))
    inner.cancel()
    await inner


class FaultyServicer(pb_grpc.TextToImageServiceServicer):
    """Servicer whose methods all raise a given exception."""

    def __init__(self, fail: Callable[[], Awaitable[None]]) -> None:
        self.fail = fail

    async def Generate(
        self, request: pb.GenerateRequest, context: Any
    ) -> AsyncIterator[pb.GenerateResponse]:
        accepted = pb.GenerationAccepted(model="x")
        yield pb.GenerateResponse(event=pb.GenerationEvent(accepted=accepted))
        await self.fail()

    async def WatchGeneration(
        self, request: pb.WatchGenerationRequest, context: Any
    ) -> AsyncIterator[pb.WatchGenerationResponse]:
        await self.fail()
        yield pb.WatchGenerationResponse()

    async def CancelGeneration(
        self, request: pb.CancelGenerationRequest, context: Any
    ) -> pb.CancelGenerationResponse:
        await self.fail()
        return pb.CancelGenerationResponse()

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        await self.fail()
        return pb.GetModelResponse()

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Any
    ) -> pb.ListModelsResponse:
        await self.fail()
        return pb.ListModelsResponse()


async def read(stub: Any) -> None:
    async for _ in stub.Generate(pb.GenerateRequest()):
        pass


def failure_of(method: str, fail: Callable[[], Awaitable[None]]) -> grpc.aio.AioRpcError:
    """Call a method whose handler fails; return the caller's error."""

    async def run() -> grpc.aio.AioRpcError:
        faults = FaultInterceptor(SERVICE, OngoingCalls(), stall_s=60)
        server = grpc.aio.server(interceptors=[faults])
        pb_grpc.add_TextToImageServiceServicer_to_server(FaultyServicer(fail), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = pb_grpc.TextToImageServiceStub(channel)
            call = read(stub) if method == "Generate" else stub.GetModel(pb.GetModelRequest())
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await asyncio.wait_for(call, timeout=10)
        await server.stop(None)
        return raised.value

    return asyncio.run(run())


METHODS = pytest.mark.parametrize("method", ["Generate", "GetModel"])


@METHODS
def test_an_unexpected_exception_reveals_only_an_id(
    method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Fault 35: the handler raises."""

    async def fail() -> None:
        raise ValueError(SECRET)

    error = failure_of(method, fail)
    assert error.code() is grpc.StatusCode.INTERNAL
    message = error.details() or ""
    assert message.startswith("internal error, id=")
    logged = "".join(capfd.readouterr())
    assert message.removeprefix("internal error, id=") in logged
    assert "ValueError" in logged
    assert SECRET not in message + logged


@METHODS
def test_a_cancellation_that_leaks_from_inside_is_internal(method: str) -> None:
    """Fault 36: an inner task is cancelled, but not the call."""
    assert failure_of(method, cancel_an_inner_task).code() is grpc.StatusCode.INTERNAL


@METHODS
def test_a_domain_error_has_its_own_status(method: str) -> None:
    async def fail() -> None:
        raise QueueFullError(queue_size=4, retry_after_s=1)

    error = failure_of(method, fail)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "4 generations wait already; try again later"


def with_broken_forwards(
    tiny_models: TinyModels,
    breaks: Callable[..., None],
    act: Callable[[Any], Awaitable[None]],
) -> None:
    """Run a test on a real server in this process; its denoiser calls `breaks` in each forward."""

    async def run() -> None:
        models = (tiny_models.settings("sd15"),)
        settings = Settings(listen="127.0.0.1:0", models=models, torch_threads=1, batching=MERGING)
        engines: list[Engine] = []

        def make_engine(observer: Observer) -> Engine:
            engines.append(Engine(settings, observer))
            return engines[-1]

        async with Server(settings, make_engine) as server:
            model = engines[-1].find_loaded()
            assert model is not None
            hook = model.denoiser.register_forward_pre_hook(breaks, with_kwargs=True)
            async with grpc.aio.insecure_channel(server.address) as channel:
                await act(pb_grpc.TextToImageServiceStub(channel))
            hook.remove()

    asyncio.run(run())


def request(**parameters: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        inputs=SECRET, parameters=pb.TextToImageParameters(**{**SMALL, **parameters})
    )


async def last_event(call: Any) -> str:
    return kinds([response async for response in call])[-1]


def test_out_of_memory_fails_the_request_that_is_too_large_and_no_other(
    tiny_models: TinyModels,
) -> None:
    """Fault 31: an image that is too large, next to a small one and before another."""

    def refuse_large(_: Any, __: Any, arguments: dict[str, torch.Tensor]) -> None:
        if arguments["sample"].shape[-2] > SMALL["height"] // 8:
            raise torch.OutOfMemoryError

    async def act(stub: Any) -> None:
        small, large = stub.Generate(request()), stub.Generate(request(height=128))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await last_event(large)
        assert read_failure(raised.value) == OUT_OF_MEMORY
        assert await last_event(small) == "completed"
        assert await last_event(stub.Generate(request())) == "completed"

    with_broken_forwards(tiny_models, refuse_large, act)


def test_an_image_that_is_not_finite_fails_its_request_and_is_not_kept(
    tiny_models: TinyModels,
) -> None:
    """The same request fails until the cause is gone; only then is there a result to keep."""
    spoilt = {"height": SMALL["height"], "seed": 5}
    is_spoiling = True

    def spoil(_: Any, __: Any, arguments: dict[str, torch.Tensor]) -> None:
        if is_spoiling and arguments["sample"].shape[-2] == spoilt["height"] // 8:
            arguments["sample"].fill_(torch.nan)

    async def act(stub: Any) -> None:
        nonlocal is_spoiling
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await last_event(stub.Generate(request(**spoilt)))
            assert read_failure(raised.value) == NON_FINITE_IMAGE
        assert await last_event(stub.Generate(request(height=64))) == "completed"
        is_spoiling = False
        for cached in ("miss", "hit"):
            call = stub.Generate(request(**spoilt))
            assert await last_event(call) == "completed"
            assert dict(await call.trailing_metadata())["x-cache"] == cached

    with_broken_forwards(tiny_models, spoil, act)


def test_an_unexpected_exception_on_the_device_reveals_only_an_id(
    tiny_models: TinyModels, capfd: pytest.CaptureFixture[str]
) -> None:
    """Fault 35: the pipeline raises."""

    def fail(*_: Any) -> None:
        raise ValueError(SECRET)

    async def act(stub: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError, match="internal error, id=") as raised:
            await last_event(stub.Generate(request()))
        assert raised.value.code() is grpc.StatusCode.INTERNAL
        assert SECRET not in str(raised.value)

    with_broken_forwards(tiny_models, fail, act)
    logged = "".join(capfd.readouterr())
    assert "ValueError" in logged
    assert SECRET not in logged
