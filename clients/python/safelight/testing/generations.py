"""The generations of the fake service: they draw squares of one colour, step by step."""

import hashlib
import threading
import uuid
from collections.abc import Generator, Iterator

from safelight.testing.model import DEFAULTS, MODEL
from safelight.testing.pictures import PREVIEW_SIDE_PX, PREVIEWS, image_events, make_png
from safelight.v1 import text_to_image_pb2 as pb


class FakeGeneration:
    """A generation that runs in its own thread, for any number of watchers.

    Attributes:
        generation_id: The caller's name, or a new one.
        request: The request that started it.
        state: How it has ended; unspecified while it runs.
    """

    def __init__(self, request: pb.GenerateRequest, step_s: float) -> None:
        """Prepare a generation.

        Args:
            request: A valid request.
            step_s: Seconds between two steps.
        """
        self.generation_id = request.generation_id or uuid.uuid4().hex
        self.request = request
        self.state: pb.GenerationState.ValueType = pb.GENERATION_STATE_UNSPECIFIED
        self._step_s = step_s
        self._events: list[pb.GenerationEvent] = []
        self._changed = threading.Condition()
        self._watcher_count = 0
        self._is_cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        """Begin to draw."""
        self._thread.start()

    def stop(self) -> None:
        """Cancel, and wait for the end of all threads."""
        self.cancel()
        self._thread.join()
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()

    def cancel(self) -> pb.GenerationState.ValueType:
        """Stop after the current step; return how the generation has ended."""
        with self._changed:
            if self.state == pb.GENERATION_STATE_UNSPECIFIED:
                self.state = pb.GENERATION_STATE_CANCELLED
                self._is_cancelled.set()
                self._changed.notify_all()
            return self.state

    def watch(self, has_left: threading.Event) -> Generator[pb.GenerationEvent, None, None]:
        """Yield all events, those of the past first, until the end or until `has_left` is set."""
        with self._changed:
            self._watcher_count += 1
        count = 0
        try:
            while not has_left.is_set():
                with self._changed:
                    while not (len(self._events) > count or self.state or has_left.is_set()):
                        self._changed.wait()
                    new, has_ended = self._events[count:], self.state
                yield from new
                count += len(new)
                if has_ended:
                    return
        finally:
            self._leave()

    def wake(self) -> None:
        """Let watchers notice that they have left."""
        with self._changed:
            self._changed.notify_all()

    def _leave(self) -> None:
        with self._changed:
            self._watcher_count -= 1
        linger_s = self.request.linger.ToNanoseconds() / 1e9
        if linger_s <= 0:
            self._cancel_if_unwatched()
        elif not self.state:
            self._timer = threading.Timer(linger_s, self._cancel_if_unwatched)
            self._timer.daemon = True
            self._timer.start()

    def _cancel_if_unwatched(self) -> None:
        with self._changed:
            if self._watcher_count:
                return
        self.cancel()

    def _run(self) -> None:
        for event in self._draw():
            with self._changed:
                if self._is_cancelled.is_set():
                    return
                self._events.append(event)
                if event.HasField("completed"):
                    self.state = pb.GENERATION_STATE_COMPLETED
                self._changed.notify_all()
            if event.HasField("progress"):
                self._is_cancelled.wait(self._step_s)

    def _draw(self) -> Iterator[pb.GenerationEvent]:
        """Yield the events of an undisturbed generation."""
        accepted = self._accept()
        parameters = accepted.parameters
        yield pb.GenerationEvent(accepted=accepted)
        step_count = parameters.num_inference_steps
        for step in range(1, step_count + 1):
            for index in range(accepted.image_count):
                yield self._progress(step, step_count, index)
                if _shows_preview(self.request.preview, step, step_count):
                    yield self._preview(step, index)
        for index in range(accepted.image_count):
            yield from _image(self.request.inputs, parameters, index)
        image_count = accepted.image_count
        completed = pb.GenerationCompleted(
            step_count=step_count * image_count,
            batch_widths=[pb.BatchWidth(image_count=image_count, forward_count=step_count)],
            cache=pb.CACHE_STATUS_BYPASS,
            usage=pb.GenerationUsage(
                image_count=image_count,
                pixel_count=parameters.width * parameters.height * image_count,
                step_count=step_count * image_count,
            ),
        )
        elapsed_ns = round(self._step_s * step_count * 1e9)
        completed.timings.denoise.FromNanoseconds(elapsed_ns)
        completed.timings.total.FromNanoseconds(elapsed_ns)
        completed.usage.device_time.FromNanoseconds(elapsed_ns)
        yield pb.GenerationEvent(completed=completed)

    def _accept(self) -> pb.GenerationAccepted:
        parameters = pb.TextToImageParameters()
        parameters.CopyFrom(DEFAULTS)
        parameters.MergeFrom(self.request.parameters)
        if not self.request.parameters.HasField("seed"):
            digest = hashlib.sha256(self.generation_id.encode()).digest()
            parameters.seed = int.from_bytes(digest[:4], "big")
        return pb.GenerationAccepted(
            generation_id=self.generation_id,
            model=MODEL.name,
            model_revision=MODEL.revision,
            parameters=parameters,
            image_count=self.request.image_count or 1,
            output=pb.OutputOptions(mime_type="image/png"),
        )

    def _progress(self, step: int, step_count: int, index: int) -> pb.GenerationEvent:
        progress = pb.StepProgress(step=step, step_count=step_count, image_index=index)
        step_ns = round(self._step_s * 1e9)
        progress.elapsed.FromNanoseconds(step_ns * step)
        progress.estimated_remaining.FromNanoseconds(step_ns * (step_count - step))
        return pb.GenerationEvent(progress=progress)

    def _preview(self, step: int, index: int) -> pb.GenerationEvent:
        mime_type = self.request.preview.mime_type or "image/jpeg"
        preview = pb.ImagePreview(
            image_index=index,
            step=step,
            mime_type=mime_type,
            width=PREVIEW_SIDE_PX,
            height=PREVIEW_SIDE_PX,
            data=PREVIEWS[mime_type],
        )
        return pb.GenerationEvent(preview=preview)


def _shows_preview(options: pb.PreviewOptions, step: int, step_count: int) -> bool:
    interval = options.interval_steps
    return interval > 0 and step < step_count and step % interval == 0


def _image(
    prompt: str, parameters: pb.TextToImageParameters, index: int
) -> Iterator[pb.GenerationEvent]:
    seed = parameters.seed + index
    red, green, blue = hashlib.sha256(f"{seed} {prompt}".encode()).digest()[:3]
    data = make_png(parameters.width, parameters.height, (red, green, blue))
    header = pb.ImageHeader(
        image_index=index,
        mime_type="image/png",
        width=parameters.width,
        height=parameters.height,
        seed=seed,
    )
    yield from image_events(header, data)
