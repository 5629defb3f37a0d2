"""Program with OpenTelemetry that uses both clients: TARGET ENDPOINT. Prints its trace ids."""

import asyncio
import json
import sys
from contextlib import suppress

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from safelight import AsyncClient, Client, DeadlineExceededError

SMALL = {"width": 64, "height": 64, "num_inference_steps": 2}
LONG = {"width": 64, "height": 64, "num_inference_steps": 150, "linger": 0}
TRACER = trace.get_tracer(__name__)
IDS: dict[str, str] = {}


def begin(name: str) -> "trace._AgnosticContextManager[trace.Span]":  # type: ignore[name-defined]
    return TRACER.start_as_current_span(name)


def note(name: str) -> None:
    IDS[name] = format(trace.get_current_span().get_span_context().trace_id, "032x")


def call(target: str) -> None:
    with Client(target) as client:
        with begin("blocking"):
            note("blocking")
            client.text_to_image("a red circle", seed=1, **SMALL)  # type: ignore[arg-type]
        with begin("blocking"):
            note("blocking cancel")
            with client.generate("a red circle", seed=2, **LONG) as events:  # type: ignore[arg-type]
                next(event for event in events if type(event).__name__ == "Progress")
        with begin("blocking"):
            note("blocking unary")
            client.get_model()


async def call_async(target: str) -> None:
    async with AsyncClient(target) as client:
        with begin("async"):
            note("async")
            await client.text_to_image("a red circle", seed=3, **SMALL)  # type: ignore[arg-type]
        with begin("async"):
            note("async cancel")
            async with client.generate("a red circle", seed=4, **LONG) as events:  # type: ignore[arg-type]
                async for event in events:
                    if type(event).__name__ == "Progress":
                        break
        with begin("async"), suppress(DeadlineExceededError):
            note("async deadline")
            await client.text_to_image("a red circle", seed=5, timeout=0.2, **LONG)  # type: ignore[arg-type]
        with begin("async"):
            note("async unary")
            await client.get_model()


def main(target: str, endpoint: str) -> None:
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"http://{endpoint}")))
    trace.set_tracer_provider(provider)
    call(target)
    asyncio.run(call_async(target))
    provider.shutdown()
    print(json.dumps(IDS))


if __name__ == "__main__":
    main(*sys.argv[1:])
