"""Refusals before the service reads a call: observers learn their reasons."""

import asyncio
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.auth.tokens import Tokens, digest_token
from safelight_service.core.observer import Observer
from safelight_service.grpc_server.interceptors.auth import AccessInterceptor
from safelight_service.grpc_server.interceptors.open_calls import OpenCallsInterceptor
from safelight_settings import TrustedProxies


class Reasons(Observer):
    """Notes the reasons of failed calls."""

    def __init__(self) -> None:
        self.noted: list[str] = []

    def call_failed(self, reason: str) -> None:
        self.noted.append(reason)


async def call_once(interceptor: grpc.aio.ServerInterceptor, method: str) -> None:
    server = grpc.aio.server(interceptors=[interceptor])
    servicer = pb_grpc.TextToImageServiceServicer  # abstract to the type checker only
    pb_grpc.add_TextToImageServiceServicer_to_server(cast(Any, servicer)(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = pb_grpc.TextToImageServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await (
                stub.Generate(pb.GenerateRequest()).read()
                if method == "Generate"
                else stub.ListModels(pb.ListModelsRequest())
            )
    await server.stop(None)


@pytest.mark.parametrize("method", ["Generate", "ListModels"])
def test_observers_learn_why_calls_are_refused(method: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(f'[[tokens]]\nname = "alice"\nsha256 = "{digest_token("a")}"\n')
    reasons = Reasons()
    access = AccessInterceptor(Tokens(file, []), reasons)
    full = OpenCallsInterceptor(0, 10.0, TrustedProxies(), reasons)
    asyncio.run(call_once(access, method))
    asyncio.run(call_once(full, method))
    assert reasons.noted == ["UNAUTHENTICATED", "TOO_MANY_CALLS"]
