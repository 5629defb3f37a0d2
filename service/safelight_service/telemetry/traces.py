"""Traces: spans of generations, of their phases and of the forwards that they share.

The span of a generation is started as usual, so that samplers decide on it. The spans below it
are made when an execution has ended, from the moments of its timeline. Spans that others link to
get their ids beforehand.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from safelight_service.core.errors import GenerationCancelledError, SafelightError
from safelight_service.core.events import Accepted, Completed, Image
from safelight_service.core.request import GenerationRequest
from safelight_service.core.timeline import ImageTimeline, SharedForward, Timeline
from safelight_service.telemetry import names
from safelight_service.version import __version__

Attributes = dict[str, AttributeValue]

_SCOPE = "safelight_service"

_W3C = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class _TracedForward:
    """The span of a forward, kept for links from the steps."""

    ended_at: float
    width: int
    context: SpanContext


@dataclass(slots=True)
class ExecutionTrace:
    """Span contexts of an execution, allotted before its spans are made."""

    parent: SpanContext
    """Span of the generation that began the execution."""
    is_continued: bool = False
    """The parent belongs to another process, which has loaded the model by a call of its own."""
    denoising: dict[int, SpanContext] = field(default_factory=dict)
    """Spans of denoising, by the image's index."""
    forwards: defaultdict[int, list[_TracedForward]] = field(
        default_factory=lambda: defaultdict(list)
    )


class Traces:
    """Makes spans. Call its methods on one event loop."""

    def __init__(
        self,
        provider: TracerProvider,
        processor: SpanProcessor,
        *,
        step_spans: bool,
        prompts: bool,
    ) -> None:
        self._tracer = provider.get_tracer(_SCOPE, __version__)
        self._resource = provider.resource
        self._scope = InstrumentationScope(_SCOPE, __version__)
        self._processor = processor
        self._step_spans = step_spans
        self._prompts = prompts
        self._ids = RandomIdGenerator()
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    def begin(self, model: str, request: GenerationRequest, began_at: float) -> Span:
        """Begin the span of a generation, below that of the current call."""
        attributes: Attributes = {
            names.OPERATION: names.GENERATE_CONTENT,
            names.OUTPUT_TYPE: names.IMAGE,
            names.PROVIDER: names.SAFELIGHT,
            names.REQUEST_MODEL: model,
        }
        if self._prompts:
            parts = [{"type": "text", "content": request.inputs}]
            attributes[names.INPUT_MESSAGES] = json.dumps([{"role": "user", "parts": parts}])
        return self._tracer.start_span(
            f"{names.GENERATE_CONTENT} {model}",
            attributes=attributes,
            start_time=self._ns(began_at),
        )

    def join(self, span: Span) -> None:
        """Link the span of the current call and that of the generation that it watches."""
        call = get_current_span()
        call.set_attribute(names.JOINED, True)
        call.add_link(span.get_span_context())
        if span.is_recording():  # otherwise it has ended, and is replayed
            span.add_link(call.get_span_context())

    def end(
        self,
        span: Span,
        state: str,
        accepted: Accepted | None,
        outcome: Completed | SafelightError | None,
        ended_at: float,
    ) -> None:
        """End the span of a generation; cancellation is no error."""
        span.set_attribute(names.STATE, state)
        if accepted is not None:
            span.set_attributes(_describe(accepted))
        if isinstance(outcome, Completed):
            span.set_attribute(names.CACHE, outcome.cache.value)
        elif outcome is not None and not isinstance(outcome, GenerationCancelledError):
            span.set_attribute(names.ERROR_TYPE, type(outcome).__name__)
            span.set_status(Status(StatusCode.ERROR, str(outcome)))
        span.end(self._ns(ended_at))

    def begin_execution(self, timeline: Timeline, span: Span) -> None:
        """Place the spans of an execution below that of a generation."""
        if span.is_recording():
            timeline.observed = ExecutionTrace(span.get_span_context())
            carrier: dict[str, str] = {}
            _W3C.inject(carrier, set_span_in_context(span))
            timeline.traceparent = carrier["traceparent"]

    def continue_execution(self, timeline: Timeline) -> None:
        """Place the spans of an execution below that of another process, if that is sampled."""
        carrier = {"traceparent": timeline.traceparent}
        parent = get_current_span(_W3C.extract(carrier, Context())).get_span_context()
        if parent.trace_flags.sampled:
            timeline.observed = ExecutionTrace(parent, is_continued=True)

    def share(self, span: Span, timeline: Timeline) -> None:
        """Link a generation to the one that began the execution which it shares."""
        if isinstance(timeline.observed, ExecutionTrace):
            span.set_attribute(names.JOINED, True)
            span.add_link(timeline.observed.parent)

    def make_forward(self, forward: SharedForward) -> None:
        """Make the span of a forward, below the leading image's denoising, with links to all."""
        members = [
            (self._denoising(image), image, steps_made + 1)
            for image, steps_made in forward.members
            if isinstance(image.timeline.observed, ExecutionTrace)
        ]
        if not members:
            return
        width = len(forward.members)
        leader = members[0][0]
        context = self._below(leader)
        links = [
            Link(each, {names.INDEX: image.index, names.STEP: step})
            for each, image, step in members
        ]
        attributes: Attributes = {
            names.FORWARD_WIDTH: width,
            names.FORWARD_ROWS: forward.row_count,
            names.REQUEST_MODEL: forward.members[0][0].timeline.model,
        }
        self._emit(
            "forward", context, leader, (forward.began_at, forward.ended_at), attributes, links
        )
        for _, image, _ in members:
            assert isinstance(image.timeline.observed, ExecutionTrace)
            image.timeline.observed.forwards[image.index].append(
                _TracedForward(forward.ended_at, width, context)
            )

    def make_phases(self, timeline: Timeline) -> None:
        """Make the spans of an execution that has ended."""
        execution = timeline.observed
        if not isinstance(execution, ExecutionTrace):
            return
        end = timeline.ended_at or time.monotonic()
        phases: list[tuple[str, float | None, float | None, ImageTimeline | None]] = []
        if not execution.is_continued:
            phases.append(("model_load", timeline.loading_at, timeline.loaded_at, None))
        if not timeline.has_spans_elsewhere:
            phases.append(("queue", timeline.queued_at, timeline.started_at, None))
        for image in () if timeline.has_spans_elsewhere else timeline.images:
            phases += [
                ("text_encode", image.started_at, image.text_encoded_at, image),
                ("decode", image.denoised_at, image.decoded_at, image),
                ("image_encode", image.encoding_at, image.encoded_at, image),
            ]
            if image.text_encoded_at is not None:
                self._make_denoising(image, image.text_encoded_at, image.denoised_at or end)
        for name, began_at, ended_at, of_image in phases:
            if began_at is not None:
                attributes: Attributes = {} if of_image is None else {names.INDEX: of_image.index}
                period = began_at, ended_at or end
                self._emit(
                    name, self._below(execution.parent), execution.parent, period, attributes
                )

    def make_sending(self, image: Image, began_at: float) -> None:
        """Make the span of sending an image, below that of the current call."""
        call = get_current_span().get_span_context()
        if call.trace_flags.sampled:
            attributes: Attributes = {
                names.INDEX: image.index,
                names.SIZE_BYTES: len(image.data),
            }
            self._emit("send", self._below(call), call, (began_at, time.monotonic()), attributes)

    def _make_denoising(self, image: ImageTimeline, began_at: float, ended_at: float) -> None:
        execution = image.timeline.observed
        assert isinstance(execution, ExecutionTrace)
        context = self._denoising(image)
        steps = list(_match_steps(image, execution.forwards[image.index]))
        attributes: Attributes = {names.INDEX: image.index, names.STEP_COUNT: len(steps)}
        events = []
        before = began_at
        for number, (step_at, forward) in enumerate(steps, 1):
            step: Attributes = {names.STEP: number}
            if forward is not None:
                step[names.FORWARD_WIDTH] = forward.width
            if self._step_spans:
                links = [] if forward is None else [Link(forward.context)]
                self._emit("step", self._below(context), context, (before, step_at), step, links)
                before = step_at
                continue
            if forward is not None:
                step[names.FORWARD_TRACE] = format(forward.context.trace_id, "032x")
                step[names.FORWARD_SPAN] = format(forward.context.span_id, "016x")
            events.append(Event("step", step, self._ns(step_at)))
        self._emit(
            "denoise", context, execution.parent, (began_at, ended_at), attributes, (), events
        )

    def _denoising(self, image: ImageTimeline) -> SpanContext:
        execution = image.timeline.observed
        assert isinstance(execution, ExecutionTrace)
        if image.index not in execution.denoising:
            execution.denoising[image.index] = self._below(execution.parent)
        return execution.denoising[image.index]

    def _below(self, parent: SpanContext) -> SpanContext:
        return SpanContext(
            parent.trace_id,
            self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=parent.trace_flags,
            trace_state=parent.trace_state,
        )

    def _emit(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext,
        period: tuple[float, float],
        attributes: Attributes,
        links: Sequence[Link] = (),
        events: Sequence[Event] = (),
    ) -> None:
        self._processor.on_end(
            ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                attributes,
                events,
                links,
                start_time=self._ns(period[0]),
                end_time=self._ns(period[1]),
                instrumentation_scope=self._scope,
            )
        )

    def _ns(self, at: float) -> int:
        """Convert a moment of time.monotonic to nanoseconds since 1970."""
        return round(at * 1e9) + self._epoch_ns


def _describe(accepted: Accepted) -> Attributes:
    request, parameters = accepted.request, accepted.request.parameters
    attributes: Attributes = {
        names.RESPONSE_ID: accepted.generation_id,
        names.RESPONSE_MODEL: accepted.model,
        names.REQUEST_SEED: parameters.seed,
        names.WIDTH: parameters.width,
        names.HEIGHT: parameters.height,
        names.STEP_COUNT: parameters.num_inference_steps,
        names.SCHEDULER: parameters.scheduler,
    }
    if request.image_count != 1:
        attributes[names.REQUEST_CHOICE_COUNT] = request.image_count
    if parameters.guidance_scale is not None:
        attributes[names.GUIDANCE_SCALE] = parameters.guidance_scale
    if accepted.model_revision:
        attributes[names.REVISION] = accepted.model_revision
    return attributes


def _match_steps(
    image: ImageTimeline, forwards: Sequence[_TracedForward]
) -> Iterator[tuple[float, _TracedForward | None]]:
    """Yield the end of each step, and the last forward before it."""
    latest: _TracedForward | None = None
    position = 0
    for step_at in image.step_ends:
        while position < len(forwards) and forwards[position].ended_at <= step_at:
            latest = forwards[position]
            position += 1
        yield step_at, latest
