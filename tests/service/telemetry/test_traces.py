"""Traces of calls and generations, as a collector in another process receives them."""

import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from safelight.v1 import text_to_image_pb2 as pb

from tests.service.telemetry.conftest import (
    PARENT,
    PROMPT_CANARY,
    TOKEN_CANARY,
    Traced,
    new_trace,
)
from tests.service.telemetry.failing_service import HEIGHT, WIDTH

GENERATE = "safelight.v1.TextToImageService/Generate"
GENERATION = "generate_content shapes"
MADE = ("queue", "text_encode", "denoise", "decode", "image_encode")
"""Spans below a generation that made its image."""


def attributes(span: Span) -> dict[str, object]:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
        for pair in span.attributes
    }


def shape(spans: Iterable[Span], top: str = PARENT) -> list[str]:
    """Return a trace as lines: names, indented by depth, with codes and errors."""
    ordered = sorted(spans, key=lambda span: (span.start_time_unix_nano, span.name != "queue"))

    def draw(parent: str, depth: int) -> Iterable[str]:
        for span in ordered:
            if span.parent_span_id.hex() == parent:
                reported = attributes(span)
                words = [
                    span.name,
                    reported.get("rpc.response.status_code"),
                    reported.get("safelight.generation.state"),
                    reported.get("error.type") and f"error={reported['error.type']}",
                    span.status.code == Status.STATUS_CODE_ERROR and "ERROR",
                ]
                yield "  " * depth + " ".join(str(word) for word in words if word)
                yield from draw(span.span_id.hex(), depth + 1)

    return list(draw(top, 0))


def named(spans: Iterable[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def seconds(spans: Iterable[Span]) -> float:
    return sum(span.end_time_unix_nano - span.start_time_unix_nano for span in spans) / 1e9


def test_a_generation_is_one_trace_whose_times_are_those_of_completed(traced: Traced) -> None:
    trace_id = new_trace()
    [*_, last] = traced.generate(trace_id, image_count=2, seed=secrets.randbits(30))
    spans = traced.receiver.wait_for_trace(trace_id, GENERATE, "send")
    assert shape(spans)[0] == f"{GENERATE} OK"
    assert shape(spans)[1] == f"  {GENERATION} completed"
    timings = last.event.completed.timings
    for name in MADE:
        reported = getattr(timings, name).ToNanoseconds() / 1e9
        assert seconds(named(spans, name)) == pytest.approx(reported, abs=1e-3), name
    total = timings.total.ToNanoseconds() / 1e9
    assert seconds(named(spans, GENERATION)) == pytest.approx(total, abs=1e-3)
    assert len(named(spans, "send")) == 2
    widths = Counter[int]()
    for forward in named(spans, "forward"):
        widths[len(forward.links)] += len(forward.links)
    assert widths == {
        each.image_count: each.forward_count for each in last.event.completed.batch_widths
    }
    assert 2 in widths


def test_the_shape_of_success(traced: Traced) -> None:
    trace_id = new_trace()
    list(traced.generate(trace_id))
    assert shape(traced.receiver.wait_for_trace(trace_id, GENERATE)) == [
        f"{GENERATE} OK",
        f"  {GENERATION} completed",
        "    queue",
        "    text_encode",
        "    denoise",
        "      forward",
        "      forward",
        "    decode",
        "    image_encode",
        "  send",
    ]


def test_attributes_follow_the_conventions(traced: Traced) -> None:
    trace_id = new_trace()
    list(traced.generate(trace_id, seed=11, generation_id="attributes-1"))
    spans = traced.receiver.wait_for_trace(trace_id, GENERATE)
    [call], [generation] = named(spans, GENERATE), named(spans, GENERATION)
    assert call.kind == Span.SPAN_KIND_SERVER
    reported = attributes(call)
    assert reported["rpc.system.name"] == "grpc"
    assert reported["rpc.method"] == GENERATE
    assert reported["network.peer.address"] == "127.0.0.1"
    reported = attributes(generation)
    assert reported["gen_ai.operation.name"] == "generate_content"
    assert reported["gen_ai.output.type"] == "image"
    assert reported["gen_ai.request.model"] == reported["gen_ai.response.model"] == "shapes"
    assert reported["gen_ai.response.id"] == "attributes-1"
    assert reported["gen_ai.request.seed"] == 11
    assert reported["safelight.image.width"] == 64
    assert reported["safelight.cache.use"] == "miss"


def test_a_wait_in_the_queue_is_a_span(traced: Traced) -> None:
    first, second = new_trace(), new_trace()
    leading = traced.generate(first, num_inference_steps=30)
    assert any(each.event.HasField("progress") for each in leading)
    [*_, last] = traced.generate(second, width=128)  # another size, which cannot be merged
    list(leading)
    spans = traced.receiver.wait_for_trace(second, GENERATE)
    [queue] = named(spans, "queue")
    waited_s = last.event.completed.timings.queue.ToNanoseconds() / 1e9
    assert seconds([queue]) == pytest.approx(waited_s, abs=1e-3)
    [led] = named(traced.receiver.wait_for_trace(first, GENERATE), "denoise")
    assert queue.end_time_unix_nano > led.end_time_unix_nano


def test_a_shared_forward_is_seen_from_both_sides(traced: Traced) -> None:
    first, second = new_trace(), new_trace()
    leading = traced.generate(first, num_inference_steps=20)
    assert any(each.event.HasField("progress") for each in leading)
    list(traced.generate(second, num_inference_steps=3))
    list(leading)
    leader = traced.receiver.wait_for_trace(first, GENERATE)
    rider = traced.receiver.wait_for_trace(second, GENERATE)
    [denoising] = named(rider, "denoise")
    shared = [span for span in named(leader, "forward") if len(span.links) == 2]
    for forward in shared:
        assert [link.trace_id.hex() for link in forward.links] == [first, second]
        assert forward.links[1].span_id == denoising.span_id
    steps = [attributes(event) for event in denoising.events]  # type: ignore[arg-type]
    assert [step["safelight.step"] for step in steps] == [1, 2, 3]
    assert {step["safelight.forward.trace_id"] for step in steps} == {first}
    spans = [step["safelight.forward.span_id"] for step in steps]
    assert spans == [forward.span_id.hex() for forward in shared]


def test_the_shape_of_a_cancel_which_is_no_error(traced: Traced) -> None:
    trace_id = new_trace()
    # Long, but short enough that a slow machine does not refuse it for its deadline.
    call = traced.generate(trace_id, num_inference_steps=150, timeout=3600)
    assert any(each.event.HasField("progress") for each in call)
    call.cancel()
    spans = traced.receiver.wait_for_trace(trace_id, GENERATE, "denoise")
    drawn = [line for line in shape(spans) if "forward" not in line]
    assert drawn == [
        f"{GENERATE} CANCELLED",
        f"  {GENERATION} cancelled",
        "    queue",
        "    text_encode",
        "    denoise",
    ]


def test_the_shape_of_a_deadline_that_passes(traced: Traced) -> None:
    trace_id = new_trace()
    call = traced.generate(
        trace_id, num_inference_steps=150, width=512, height=504, image_count=8, timeout=0.4
    )
    with pytest.raises(grpc.RpcError):
        list(call)
    drawn = shape(traced.receiver.wait_for_trace(trace_id, GENERATE, GENERATION))
    assert drawn[0] == f"{GENERATE} DEADLINE_EXCEEDED error=DEADLINE_EXCEEDED ERROR"
    assert drawn[1] == f"  {GENERATION} cancelled"


def test_the_shape_of_a_deadline_that_cannot_be_met(traced: Traced) -> None:
    list(traced.generate())  # measures the cost of a step
    trace_id = new_trace()
    with pytest.raises(grpc.RpcError):
        list(traced.generate(trace_id, num_inference_steps=150, image_count=8, timeout=0.5))
    spans = traced.receiver.wait_for_trace(trace_id, GENERATE, GENERATION)
    assert shape(spans) == [
        f"{GENERATE} DEADLINE_EXCEEDED error=DEADLINE_EXCEEDED ERROR",
        f"  {GENERATION} failed error=DeadlineError ERROR",
        "    queue",
    ]
    [call] = named(spans, GENERATE)
    assert attributes(call)["safelight.error.reason"] == "DEADLINE"


def test_the_shape_of_a_refusal_which_is_the_callers_fault(traced: Traced) -> None:
    trace_id = new_trace()
    with pytest.raises(grpc.RpcError):
        list(traced.generate(trace_id, width=65))
    spans = traced.receiver.wait_for_trace(trace_id, GENERATE)
    assert shape(spans) == [
        f"{GENERATE} INVALID_ARGUMENT",
        f"  {GENERATION} failed error=InvalidRequestError ERROR",
    ]
    [call], [generation] = named(spans, GENERATE), named(spans, GENERATION)
    assert attributes(call)["safelight.error.reason"] == "INVALID_REQUEST"
    assert "width" in generation.status.message


def test_the_shape_of_a_failure(traced: Traced) -> None:
    trace_id = new_trace()
    with pytest.raises(grpc.RpcError) as raised:
        list(traced.generate(trace_id, width=WIDTH, height=HEIGHT))
    spans = traced.receiver.wait_for_trace(trace_id, GENERATE)
    assert shape(spans) == [
        f"{GENERATE} INTERNAL error=INTERNAL ERROR",
        f"  {GENERATION} failed error=InternalError ERROR",
        "    queue",
        "    text_encode",
        "    denoise",
    ]
    [call] = named(spans, GENERATE)
    assert call.status.message == raised.value.details()


def test_a_model_that_is_loaded_first_is_a_span(traced: Traced) -> None:
    trace_id = new_trace()
    list(traced.generate(trace_id, ("x-wait-for-model", "true"), model="cold"))
    drawn = shape(traced.receiver.wait_for_trace(trace_id, GENERATE))
    assert drawn[1:4] == ["  generate_content cold completed", "    model_load", "    queue"]


def test_the_shape_of_a_cache_hit(traced: Traced) -> None:
    seed, first, second = secrets.randbits(30), new_trace(), new_trace()
    list(traced.generate(first, seed=seed))
    list(traced.generate(second, seed=seed))
    spans = traced.receiver.wait_for_trace(second, GENERATE)
    assert shape(spans) == [f"{GENERATE} OK", f"  {GENERATION} completed", "  send"]
    [generation] = named(spans, GENERATION)
    assert attributes(generation)["safelight.cache.use"] == "hit"


def test_the_shape_of_a_join_by_the_id(traced: Traced) -> None:
    first, second = new_trace(), new_trace()
    request: dict[str, Any] = {"generation_id": f"join-{second}", "num_inference_steps": 10}
    leading = traced.generate(first, **request)
    assert any(each.event.HasField("progress") for each in leading)
    list(traced.generate(second, **request))
    list(leading)
    spans = traced.receiver.wait_for_trace(second, GENERATE)
    assert shape(spans) == [f"{GENERATE} OK", "  send"]
    [call] = named(spans, GENERATE)
    [generation] = named(traced.receiver.wait_for_trace(first, GENERATE), GENERATION)
    assert [link.span_id for link in call.links] == [generation.span_id]
    assert [link.span_id for link in generation.links] == [call.span_id]
    again = new_trace()
    list(traced.generate(again, **request))  # ended, so this replays it
    [call] = named(traced.receiver.wait_for_trace(again, GENERATE), GENERATE)
    assert [link.span_id for link in call.links] == [generation.span_id]
    assert "ended span" not in traced.service.read_log()


def test_the_shape_of_a_join_by_the_seed(traced: Traced) -> None:
    first, second, seed = new_trace(), new_trace(), secrets.randbits(30)
    leading = traced.generate(first, seed=seed, num_inference_steps=100)
    assert any(each.event.HasField("progress") for each in leading)
    list(traced.generate(second, seed=seed, num_inference_steps=100))
    list(leading)
    spans = traced.receiver.wait_for_trace(second, GENERATE)
    assert shape(spans) == [f"{GENERATE} OK", f"  {GENERATION} completed", "  send"]
    [generation] = named(spans, GENERATION)
    [other] = named(traced.receiver.wait_for_trace(first, GENERATE), GENERATION)
    assert [link.span_id for link in generation.links] == [other.span_id]


@pytest.mark.parametrize(
    "traceparent",
    ["00-zz-1-01", "", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff" * 100],
    ids=["letters", "empty", "zeros", "long"],
)
def test_a_malformed_traceparent_starts_a_new_trace(traced: Traced, traceparent: str) -> None:
    name = f"malformed-{new_trace()}"
    list(traced.generate("", ("traceparent", traceparent), generation_id=name))
    spans = traced.receiver.wait_for_spans(
        lambda spans: any(attributes(span).get("gen_ai.response.id") == name for span in spans)
    )
    [generation] = [span for span in spans if attributes(span).get("gen_ai.response.id") == name]
    trace = traced.receiver.wait_for_trace(generation.trace_id.hex(), GENERATE)
    assert shape(trace, top="")[0] == f"{GENERATE} OK"


def test_baggage_of_8_kb_is_no_burden(traced: Traced) -> None:
    trace_id = new_trace()
    baggage = ",".join(f"key{number}={PROMPT_CANARY}" for number in range(400))[:8192]
    list(traced.generate(trace_id, ("baggage", baggage)))
    assert shape(traced.receiver.wait_for_trace(trace_id, GENERATE))[0] == f"{GENERATE} OK"


def test_an_unsampled_trace_has_no_spans(traced: Traced) -> None:
    unsampled, sampled = new_trace(), new_trace()
    list(traced.generate("", ("traceparent", f"00-{unsampled}-{PARENT}-00")))
    list(traced.generate(sampled))
    traced.receiver.wait_for_trace(sampled, GENERATE)
    assert not [span for span in traced.receiver.spans if span.trace_id.hex() == unsampled]


def test_both_clients_are_part_of_the_trace_of_their_caller(traced: Traced) -> None:
    caller = [
        sys.executable,
        *("-m", "tests.service.telemetry.traced_caller"),
        *(traced.service.target, traced.receiver.endpoint),
    ]
    made = subprocess.run(caller, stdout=subprocess.PIPE, check=True, timeout=60)
    ids: dict[str, str] = json.loads(made.stdout)
    for client in ("blocking", "async"):
        spans = traced.receiver.wait_for_trace(ids[client], client, *[GENERATE] * 2, "send")
        assert shape(spans, top="")[:4] == [
            client,
            f"  {GENERATE} OK",
            f"    {GENERATE} OK",
            f"      {GENERATION} completed",
        ]
        assert shape(spans, top="").count("          forward") == 2
        kinds = [span.kind for span in sorted(named(spans, GENERATE), key=lambda s: s.kind)]
        assert kinds == [Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT]
        spans = traced.receiver.wait_for_trace(
            ids[f"{client} cancel"], client, *[GENERATE] * 2, "denoise"
        )
        assert shape(spans, top="")[:4] == [
            client,
            f"  {GENERATE} CANCELLED",
            f"    {GENERATE} CANCELLED",
            f"      {GENERATION} cancelled",
        ]
        get_model = GENERATE.replace("Generate", "GetModel")
        spans = traced.receiver.wait_for_trace(ids[f"{client} unary"], client, *[get_model] * 2)
        assert shape(spans, top="") == [client, f"  {get_model} OK", f"    {get_model} OK"]
    spans = traced.receiver.wait_for_trace(
        ids["async deadline"], "async", *[GENERATE] * 2, GENERATION
    )
    expired = f"{GENERATE} DEADLINE_EXCEEDED error=DEADLINE_EXCEEDED ERROR"
    assert shape(spans, top="")[1:3] == [f"  {expired}", f"    {expired}"]


def test_the_line_in_the_log_has_the_ids_of_the_trace(traced: Traced) -> None:
    trace_id = new_trace()
    [*_, last] = traced.generate(trace_id, generation_id=f"log-{trace_id}")
    [generation] = named(traced.receiver.wait_for_trace(trace_id, GENERATION), GENERATION)
    [line] = [
        json.loads(line)
        for line in traced.service.read_log().splitlines()
        if f'"log-{trace_id}"' in line
    ]
    assert line["event"] == "generation_ended"
    assert line["state"] == "completed"
    assert (line["trace_id"], line["span_id"]) == (trace_id, generation.span_id.hex())
    timings: pb.GenerationTimings = last.event.completed.timings
    assert line["denoise_s"] == pytest.approx(timings.denoise.ToNanoseconds() / 1e9, abs=1e-3)


def test_neither_prompts_nor_tokens_are_told(traced: Traced) -> None:
    trace_id = new_trace()
    list(traced.generate(trace_id, ("baggage", f"secret={TOKEN_CANARY}")))
    with pytest.raises(grpc.RpcError):
        list(traced.generate(trace_id, negative_prompt=PROMPT_CANARY, width=65))
    traced.receiver.wait_for_trace(trace_id, GENERATE, "send")
    traced.receiver.wait_for_metrics("safelight.images")
    reported = b"".join(traced.receiver.raw) + traced.service.read_log().encode()
    assert trace_id in reported.hex()
    for canary in (PROMPT_CANARY, TOKEN_CANARY):
        assert canary.encode() not in reported
