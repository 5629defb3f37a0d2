"""Metrics of the Prometheus endpoint, parsed by Prometheus's client; dashboard and alerts."""

import json
import re
import secrets
import shutil
import subprocess
import urllib.request
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from safelight.v1 import text_to_image_pb2 as pb

from tests.service.telemetry.conftest import Traced

OBSERVABILITY = Path("deploy/observability")

GENERATION_LABELS = {"gen_ai_request_model", "safelight_generation_state", "safelight_cache_use"}
LABELS = {
    "gen_ai_server_request_duration_seconds": {
        *("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "error_type")
    },
    "process_memory_usage_bytes": set(),
    "rpc_server_call_duration_seconds": {
        *("rpc_system_name", "rpc_method", "rpc_response_status_code", "error_type")
    },
    "safelight_cache_lookups": {"safelight_cache_tier", "safelight_cache_result"},
    "safelight_cache_size_bytes": {"safelight_cache_tier"},
    "safelight_device_busy_seconds": {"safelight_device"},
    "safelight_device_time_seconds": {"gen_ai_request_model", "safelight_token"},
    "safelight_event_loop_lag_seconds": set(),
    "safelight_forward_duration_seconds": {"gen_ai_request_model"},
    "safelight_forward_width": {"gen_ai_request_model"},
    "safelight_generations": GENERATION_LABELS,
    "safelight_generations_running": set(),
    "safelight_images": {"gen_ai_request_model", "safelight_token"},
    "safelight_model_compilations": {"gen_ai_request_model", "safelight_compilation_reason"},
    "safelight_model_load_duration_seconds": {"gen_ai_request_model"},
    "safelight_model_resident": {"gen_ai_request_model"},
    "safelight_model_size_bytes": {"gen_ai_request_model"},
    "safelight_pixels": {"gen_ai_request_model", "safelight_token"},
    "safelight_queue_depth": set(),
    "safelight_queue_wait_seconds": {"gen_ai_request_model"},
    "safelight_step_duration_seconds": {"gen_ai_request_model"},
    "safelight_steps": {"gen_ai_request_model", "safelight_token"},
}
"""Labels by metric, for all metrics of a service without a GPU after some use."""

DEVICE_LABELS = {"safelight_device_memory_state"}
RARE = {"safelight_device_memory_bytes", "safelight_previews_dropped", "safelight_readers_stalled"}
"""Metrics that appear only after certain events."""


def scrape(traced: Traced) -> dict[str, Metric]:
    lines = map(json.loads, traced.service.read_log().splitlines())
    [address] = [line["address"] for line in lines if line["event"] == "prometheus_ready"]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {metric.name: metric for metric in text_string_to_metric_families(text)}


def value(metrics: dict[str, Metric], sample_name: str, **labels: str) -> float:
    return sum(
        sample.value
        for metric in metrics.values()
        for sample in metric.samples
        if sample.name == sample_name and labels.items() <= sample.labels.items()
    )


def test_every_metric_is_there_with_labels_of_few_values(traced: Traced) -> None:
    list(traced.generate())
    with pytest.raises(grpc.RpcError):
        list(traced.generate(model=f"unheard-of-{secrets.token_hex(4)}"))
    # These are measured periodically, not by calls.
    traced.receiver.wait_for_metrics("safelight.event_loop.lag", "safelight.forward.width")
    metrics = scrape(traced)
    ours = {name for name in metrics if name != "target_info"} - RARE
    assert ours == LABELS.keys()
    for name, allowed in LABELS.items():
        labels = {label for sample in metrics[name].samples for label in sample.labels}
        assert labels - {"le"} <= allowed, name
        for sample in metrics[name].samples:
            model = sample.labels.get("gen_ai_request_model", "shapes")
            assert model in ("shapes", "cold", "unused", "_OTHER")
    for name in ("images", "pixels", "steps", "device_time_seconds"):
        unused = {"gen_ai_request_model": "unused", "safelight_token": ""}
        counted = [(sample.labels, sample.value) for sample in metrics[f"safelight_{name}"].samples]
        assert (unused, 0) in counted  # so that the first use is an increase
    traced.receiver.wait_for_metrics("rpc.server.call.duration")


def test_work_is_counted(traced: Traced) -> None:
    before = scrape(traced)
    seed = secrets.randbits(30)
    *_, last = traced.generate(image_count=2, num_inference_steps=3, seed=seed)
    *_, cached = traced.generate(image_count=2, num_inference_steps=3, seed=seed)
    after = scrape(traced)
    usage = last.event.completed.usage
    assert (usage.image_count, usage.pixel_count, usage.step_count) == (2, 2 * 64 * 64, 6)
    assert cached.event.completed.usage == pb.GenerationUsage(device_time=Duration())

    def rise(name: str, **labels: str) -> float:
        return value(after, name, **labels) - value(before, name, **labels)

    assert rise("safelight_images_total") == 2
    assert rise("safelight_pixels_total") == 2 * 64 * 64
    assert rise("safelight_steps_total") == 6
    device_time_s = usage.device_time.ToNanoseconds() / 1e9
    assert rise("safelight_device_time_seconds_total", safelight_token="") == pytest.approx(
        device_time_s, rel=1e-6
    )
    assert rise("safelight_device_busy_seconds_total") >= device_time_s > 0
    assert rise("safelight_step_duration_seconds_count") == 6
    assert rise("safelight_forward_width_sum") == 6
    assert rise("safelight_queue_wait_seconds_count") == 1
    assert rise("safelight_generations_total", safelight_generation_state="completed") == 2
    assert rise("safelight_generations_total", safelight_cache_use="hit") == 1
    assert rise("safelight_cache_lookups_total", safelight_cache_result="hits") == 1
    assert rise("safelight_cache_size_bytes") > 0
    assert rise("rpc_server_call_duration_seconds_count", rpc_response_status_code="OK") == 2
    assert value(after, "safelight_model_size_bytes", gen_ai_request_model="shapes") > 1e6


def metrics_asked_for(text: str) -> set[str]:
    return {
        re.sub(r"_(bucket|count|sum|total)$", "", name)
        for name in re.findall(r"\b(?:safelight|rpc_server|gen_ai_server|process)_\w+", text)
    }


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    panels = [panel for panel in dashboard["panels"] if "targets" in panel]
    asked = set()
    for panel in panels:
        for target in panel["targets"]:
            labels = {label for labels in LABELS.values() for label in labels}
            asked |= metrics_asked_for(target["expr"]) - labels - DEVICE_LABELS
    assert asked <= LABELS.keys() | RARE
    assert len(asked) >= 15


def test_the_docs_describe_every_metric_and_no_other() -> None:
    text = Path("docs/observability.md").read_text().replace("safelight_service/", "")
    labels = {label for labels in LABELS.values() for label in labels}
    assert metrics_asked_for(text) - labels - DEVICE_LABELS == LABELS.keys() | RARE


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_alerts_come_when_they_should_and_not_before() -> None:
    rules = ["promtool", "test", "rules", "alerts_test.yaml"]
    subprocess.run(rules, cwd=OBSERVABILITY, check=True)


def test_alerts_ask_for_metrics_that_there_are() -> None:
    names = metrics_asked_for((OBSERVABILITY / "alerts.yaml").read_text())
    labels = {label for labels in LABELS.values() for label in labels}
    assert names - labels - DEVICE_LABELS <= LABELS.keys() | RARE
