"""Script that calls a service for models of odd names; prints what each call opened on the host."""

import asyncio
import sys

import grpc
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.app import make_server
from safelight_service.logs import configure_logs
from safelight_service.settings import ModelSettings, Settings

NAMES = ("../x", "/etc", "owner/name", "https://example.com/x", "file:///etc")


async def main() -> None:
    """Call twice for each name; print the status, and events of files, sockets and processes."""
    model = ModelSettings(name="shapes", source="shapes", preload=False)
    settings = Settings(models=(model,), listen="127.0.0.1:0")
    configure_logs(settings)
    async with (
        make_server(settings) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = pb_grpc.TextToImageServiceStub(channel)
        await stub.ListModels(pb.ListModelsRequest())
        touched: list[tuple[str, tuple[object, ...]]] = []

        def note(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open" or event.startswith(("socket.", "os.", "subprocess.")):
                touched.append((event, arguments))

        sys.addaudithook(note)
        for name in NAMES:
            for call in (
                stub.Generate(pb.GenerateRequest(inputs="x", model=name)).read(),
                stub.GetModel(pb.GetModelRequest(model=name)),
            ):
                try:
                    await call
                except grpc.aio.AioRpcError as error:
                    print(error.code().name, touched)


if __name__ == "__main__":
    asyncio.run(main())
