"""A service with traces and metrics, and the collector that it exports to."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from support.otlp_receiver import Receiver, run_receiver
from support.running_service import RunningService, run_service

PROMPT_CANARY = "canary-prompt-9d1f"
TOKEN_CANARY = "canary-token-77ab"
SMALL = {"width": 64, "height": 64, "num_inference_steps": 2}
COLD = [
    {"name": "shapes", "source": "shapes"},
    {"name": "cold", "source": "shapes", "preload": False, "warm_up": False},
    {"name": "unused", "source": "shapes", "preload": False, "warm_up": False},
]


@dataclass(frozen=True)
class Traced:
    """Service, its collector, and a channel without OpenTelemetry."""

    service: RunningService
    receiver: Receiver
    channel: grpc.Channel

    @property
    def stub(self) -> pb_grpc.TextToImageServiceStub:
        return pb_grpc.TextToImageServiceStub(self.channel)

    def generate(
        self, trace_id: str = "", *metadata: tuple[str, str], timeout: float = 60, **changes: Any
    ) -> Any:
        """Call Generate within a trace, with a hand-made traceparent; return the call."""
        parameters = {name: changes.pop(name) for name in tuple(changes) if name in _PARAMETERS}
        request = pb.GenerateRequest(
            inputs=PROMPT_CANARY,
            parameters=pb.TextToImageParameters(**{**SMALL, **parameters}),
            **changes,
        )
        traceparent = [("traceparent", f"00-{trace_id}-{PARENT}-01")] if trace_id else []
        return self.stub.Generate(
            request,
            timeout=timeout,
            metadata=(("authorization", f"Bearer {TOKEN_CANARY}"), *traceparent, *metadata),
        )


PARENT = "00f067aa0ba902b7"
_PARAMETERS = pb.TextToImageParameters.DESCRIPTOR.fields_by_name.keys()


def new_trace() -> str:
    return secrets.token_hex(16)


@pytest.fixture(scope="session")
def traced() -> Iterator[Traced]:
    otel = {"bsp_schedule_delay": "50", "metric_export_interval": "200"}
    with (
        run_receiver() as receiver,
        run_service(
            "tests.service.telemetry.failing_service",
            otel={"exporter_otlp_endpoint": f"http://{receiver.endpoint}", **otel},
            models=json.dumps(COLD),
            batching='{"max_width": 8, "order": "first_come"}',
            cache='{"enabled": true}',
            telemetry='{"prometheus_listen": "127.0.0.1:0"}',
            log_format="json",
        ) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        yield Traced(service, receiver, channel)
