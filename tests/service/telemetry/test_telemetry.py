"""Telemetry costs nothing when it is off, and never waits for a collector."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from urllib.request import urlopen

import grpc
import pytest
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.core.observer import Compilation
from safelight_service.core.timeline import Timeline
from safelight_service.engine import Engine
from safelight_service.settings import (
    ConfigurationError,
    Settings,
    TelemetrySettings,
)
from safelight_service.telemetry.signals import Signals, find_signals
from safelight_service.telemetry.telemetry import Telemetry
from support.running_service import run_service

EXIT_S = 5
OFF = TelemetrySettings()
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
SMALL = pb.TextToImageParameters(width=64, height=64, num_inference_steps=2)


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address that accepts connections but never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_silent_collector_holds_up_neither_generations_nor_the_end(black_hole: str) -> None:
    otel = {"exporter_otlp_endpoint": black_hole, "bsp_schedule_delay": "50"}
    with (
        run_service(otel={**otel, "metric_export_interval": "100"}) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        stub = pb_grpc.TextToImageServiceStub(channel)
        for _ in range(3):
            [*_, last] = stub.Generate(pb.GenerateRequest(inputs="a", parameters=SMALL), timeout=30)
            assert last.event.HasField("completed")
        begun_at = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - begun_at < EXIT_S


def test_compilations_after_the_warm_up_are_counted() -> None:
    async def count() -> str:
        settings = TelemetrySettings(prometheus_listen="127.0.0.1:0")
        telemetry = Telemetry(settings, find_signals(settings, {}), ["shapes"], "shapes")
        engine = Engine(Settings(), telemetry)
        telemetry.start(engine, {}, list)
        assert telemetry.note_compilation is not None
        telemetry.note_compilation(Compilation("shapes", "new_shape"))
        telemetry.execution_ended(Timeline(model="shapes"))  # evaluates the recorded timeline
        address = telemetry.prometheus_address
        with await asyncio.to_thread(urlopen, f"http://{address}/metrics") as response:
            text: str = response.read().decode()
        await engine.close()
        await telemetry.close()
        return text

    counted = re.findall(r'compilations_total{.*reason="(\w+)"} (\S+)', asyncio.run(count()))
    assert counted == [("new_shape", "1.0"), ("recompile", "0.0")]


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, False, False),
        (ENDPOINT, True, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4317"}, True, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, False, True),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False, False),
        ({"OTEL_SERVICE_NAME": "pictures"}, False, False),
    ],
    ids=lambda value: ",".join(value) or "none" if isinstance(value, dict) else str(value),
)
def test_the_variables_of_opentelemetry_decide(
    variables: dict[str, str], traces: bool, metrics: bool
) -> None:
    assert find_signals(OFF, variables) == Signals(traces, metrics, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
)
def test_what_there_is_not_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}.*{value}"):
        find_signals(OFF, {**ENDPOINT, name: value})


def test_a_protocol_of_the_signal_wins_over_that_of_all() -> None:
    variables = {
        **ENDPOINT,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc",
    }
    assert find_signals(OFF, variables) == Signals(True, True, None)


def test_prometheus_needs_no_collector() -> None:
    signals = find_signals(TelemetrySettings(prometheus_listen="127.0.0.1:0"), {})
    assert signals.has_metrics
    assert not signals.exports_metrics
