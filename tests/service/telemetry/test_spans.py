"""Optional spans, from a handwritten timeline."""

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext

from safelight_service.core.request import GenerationRequest
from safelight_service.core.timeline import SharedForward, Timeline
from safelight_service.fleet.frames import Moments
from safelight_service.telemetry.traces import Traces

PROMPT = "a canary in a coal mine"


def make_traces(**options: bool) -> tuple[Traces, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    settings: dict[str, Any] = {"step_spans": False, "prompts": False, **options}
    return Traces(provider, processor, **settings), exporter


def make_spans(**options: bool) -> list[ReadableSpan]:
    """Return the spans of an image of two steps that started at 100 s."""
    traces, exporter = make_traces(**options)
    timeline = Timeline(100.0, "shapes", queued_at=101.0)
    generation = traces.begin("shapes", GenerationRequest(PROMPT), 100.0)
    traces.begin_execution(timeline, generation)
    image = timeline.add_image()
    image.started_at, image.text_encoded_at, image.denoised_at = 102.0, 103.0, 107.0
    image.step_ends += [105.0, 107.0]
    for step, began_at in enumerate((103.0, 105.0)):
        traces.make_forward(SharedForward(began_at, began_at + 1.5, 2, ((image, step),)))
    image.decoded_at = image.encoding_at = 108.0
    image.encoded_at = timeline.ended_at = 109.0
    traces.make_phases(timeline)
    traces.end(generation, "completed", None, None, 109.0)
    return list(exporter.get_finished_spans())


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def test_steps_are_spans_of_their_own_if_asked_for() -> None:
    spans = make_spans(step_spans=True)
    steps = [span for span in spans if span.name == "step"]
    assert [seconds(step) for step in steps] == [2.0, 2.0]
    forwards = [span.context for span in spans if span.name == "forward"]
    assert [step.links[0].context for step in steps] == forwards
    [denoising] = [span for span in spans if span.name == "denoise"]
    assert not denoising.events
    assert all(step.parent == denoising.context for step in steps)


def test_the_prompt_is_recorded_only_by_request() -> None:
    for span in make_spans():
        assert PROMPT not in span.to_json()
    [generation] = [span for span in make_spans(prompts=True) if "generate" in span.name]
    assert PROMPT in str((generation.attributes or {})["gen_ai.input.messages"])


def test_the_process_of_an_engine_continues_a_trace() -> None:
    front, of_front = make_traces()
    engine, of_engine = make_traces()
    here = Timeline(100.0, loading_at=100.0, loaded_at=101.0)
    generation = front.begin("shapes", GenerationRequest(PROMPT), 100.0)
    front.begin_execution(here, generation)
    there = Timeline(traceparent=here.traceparent, loading_at=0.1, loaded_at=0.2, queued_at=1.0)
    engine.continue_execution(there)
    image = there.add_image()
    image.started_at, image.text_encoded_at = 2.0, 3.0
    engine.make_forward(SharedForward(3.0, 4.0, 1, ((image, 0),)))
    engine.make_phases(there)
    Moments.of(there).write_to(here)
    front.make_phases(here)
    spans = of_engine.get_finished_spans()
    assert [span.name for span in spans] == ["forward", "denoise", "queue", "text_encode"]
    context = generation.get_span_context()
    assert {span.context.trace_id for span in spans if span.context} == {context.trace_id}
    assert spans[-1].parent == SpanContext(*context[:2], is_remote=True, trace_flags=context[3])
    assert [span.name for span in of_front.get_finished_spans()] == ["model_load"]


def test_a_run_without_a_trace_has_no_spans() -> None:
    engine, exporter = make_traces()
    timeline = Timeline(queued_at=1.0)
    engine.continue_execution(timeline)
    engine.make_phases(timeline)
    assert not exporter.get_finished_spans()
