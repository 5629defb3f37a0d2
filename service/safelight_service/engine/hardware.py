"""Hardware: differences between devices, for the few modules that depend on them.

A GPU works asynchronously, devices report a shortage of memory in different words, and some
errors end all further work.
"""

import contextlib
import gc
import math
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Event(Protocol):
    """A marker in a device's queue of work, like torch.cuda.Event."""

    def record(self, stream: Any = None) -> None:
        """Add the marker to a stream's queue."""

    def synchronize(self) -> None:
        """Wait until the device has reached the marker."""

    def elapsed_time(self, other: Any) -> float:
        """Return the milliseconds from this event to a later one, once both have happened."""


def is_asynchronous(device: torch.device) -> bool:
    """Whether a device queues work while the host continues."""
    return device.type == "cuda"


def make_event(device: torch.device, *, is_timed: bool = True) -> Event:
    """Make an event for an asynchronous device: a timed one, or one whose waiters sleep."""
    options = {"enable_timing": True} if is_timed else {"blocking": True}
    event: Event = torch.cuda.Event(**options)  # type: ignore[no-untyped-call]
    return event


def mark(device: torch.device, *, is_timed: bool = True) -> Event:
    """Record an event at the end of the current stream of a device."""
    event = make_event(device, is_timed=is_timed)
    event.record(torch.cuda.current_stream(device) if device.type == "cuda" else None)
    return event


def pin(tensor: Tensor) -> Tensor:
    """Copy a host tensor to pinned memory, from which a device copies without blocking the host."""
    return tensor.pin_memory()


def indexed(device: torch.device) -> torch.device:
    """Add the index to a GPU that has none, so that equal devices compare equal."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def explain_absence(device: torch.device) -> str | None:
    """Return the reason why torch cannot use a device, or None. Initialises no GPU."""
    if device.type == "mps" and not torch.backends.mps.is_available():
        return "torch finds no Metal GPU"
    if device.type != "cuda":
        return None
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return "this build of torch has no CUDA"
    count = torch.cuda.device_count()
    if count == 0:
        return "torch finds no GPU"
    return f"torch finds {count} GPU(s), numbered from 0" if (device.index or 0) >= count else None


def copy_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a host tensor without waiting for the device."""
    if not is_asynchronous(device):
        return tensor.to(device, copy=True)
    return pin(tensor).to(device, non_blocking=True)


def copy_to_host(
    tensors: Sequence[Tensor], device: torch.device
) -> tuple[list[Tensor], Callable[[], None]]:
    """Copy tensors to the host without waiting for the device.

    Returns the contiguous copies, and a function that waits until they are complete, for any
    thread.
    """
    if not is_asynchronous(device):
        return [tensor.to("cpu", copy=True).contiguous() for tensor in tensors], lambda: None
    copies = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    return copies, mark(device, is_timed=False).synchronize


@contextlib.contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make a device current in this thread, with its own stream."""
    if device.type != "cuda":
        yield
        return
    stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    with torch.cuda.device(device), torch.cuda.stream(stream):
        yield


class _SideStreams(threading.local):
    """Streams of one thread by device.

    They are kept: torch hands out 32 streams in turn, so new ones would soon be those of device
    threads, full of work, or of captures, which break when others use them.
    """

    def __init__(self) -> None:
        self._streams: dict[torch.device, Any] = {}

    def __getitem__(self, device: torch.device) -> Any:
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        return self._streams[device]


_side_streams = _SideStreams()


@contextlib.contextmanager
def on_side_stream(device: torch.device, after: Any) -> Iterator[None]:
    """Run the block's work on a side stream of this thread, after an event.

    The device thread's stream already holds later steps.
    """
    if device.type != "cuda":
        yield
        return
    stream = _side_streams[device]
    with torch.cuda.stream(stream):
        stream.wait_event(after)
        yield


NoteSeconds = Callable[[float], None]


@dataclass(slots=True)
class Span:
    """A span of device work, from its first operation to its last."""

    device: torch.device
    note: NoteSeconds
    """Called with the seconds that the device took, once it has finished."""
    uses: object
    """Kept in memory until the device has finished. Weights were allocated on another stream, so
    torch would reuse their memory while this stream still reads them."""
    parts: Mapping[Any, float]
    """Parts of the seconds by the party that they count for; 1 together."""
    begin: Event | None
    began_at: float
    end: Event | None = None
    seconds: float | None = None
    """Device time; None until it has finished."""

    def finish(self) -> None:
        """Wait until the device has finished the work, and call `note` once."""
        if self.seconds is None:
            self.seconds = self.measure()
            self.note(self.seconds)

    def measure(self) -> float:
        """Wait until the device has finished the work, and return its seconds.

        Safe to call from any thread, once the span has ended on an asynchronous device.
        """
        if self.begin is None or self.end is None:
            return time.monotonic() - self.began_at
        self.end.synchronize()
        return self.begin.elapsed_time(self.end) / 1e3


class RunAhead:
    """Keeps the host at most one step ahead of an asynchronous device, and measures its work.

    Further ahead, the host would report progress too early and obey cancellations too late.
    Times come from events that the device itself records.
    """

    def __init__(self) -> None:
        self._last_step: list[Span] = []
        self._this_step: list[Span] = []

    @property
    def unfinished(self) -> Sequence[Span]:
        """Spans that have ended for the host, but perhaps not for the device."""
        return (*self._last_step, *self._this_step)

    def begin(
        self,
        device: torch.device,
        note: NoteSeconds,
        uses: object = None,
        parts: Mapping[Any, float] | None = None,
    ) -> Span:
        """Begin a span of work on a device, and keep its tensors in memory."""
        event = mark(device) if is_asynchronous(device) else None
        return Span(device, note, uses, parts or {}, event, time.monotonic())

    def end(self, span: Span) -> None:
        """End a span of work; finish it at once on a synchronous device."""
        if span.begin is None:
            span.finish()
        else:
            span.end = mark(span.device)
            self._this_step.append(span)

    def end_step(self) -> None:
        """Wait until the device has finished the previous step."""
        for span in self._last_step:
            span.finish()
        self._last_step, self._this_step = self._this_step, []

    def catch_up(self) -> None:
        """Wait until the device has finished all its work."""
        self.end_step()
        self.end_step()


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished the current stream of this thread."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def is_answering(device: torch.device) -> bool:
    """Whether a device still performs the simplest operation.

    After some errors, such as an illegal memory access, CUDA refuses all work of the process.
    """
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError as error:
        return is_out_of_memory(error)
    return True


_OUT_OF_MEMORY = re.compile(
    r"\bout of memory\b(?! bounds)"  # CUDA, its driver, HIP, XPU and MPS
    r"|_ALLOC(ATION)?_FAILED\b"  # cuBLAS, cuDNN, cuSOLVER, cuFFT, and HIP's equivalents
    r"|\bDefaultCPUAllocator\b"
    # An assertion that fails while torch describes how full the device is.
    r"|NVML_SUCCESS == .* INTERNAL ASSERT FAILED at .*CUDACachingAllocator",
    re.IGNORECASE,
)
"""Texts of out-of-memory errors that have no class. Excludes cuDNN's "unable to find an
engine" and cuBLAS's NOT_INITIALIZED, which have other causes as well."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error reports too little memory, on a device or on the host."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )


def free_memory() -> None:
    """Collect garbage, and empty torch's cache of device memory."""
    gc.collect()
    empty_cache()


def empty_cache() -> None:
    """Return the memory that torch caches on GPUs to the devices."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_with_room(run: Callable[[], T]) -> T:
    """Call `run`; when memory runs out, empty torch's cache and call it once more."""
    try:
        return run()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    empty_cache()
    return run()


_SHARE_FOR_WEIGHTS = 0.8
"""Share of a GPU's free memory; the rest is for the activations of forwards and decodes."""


def memory_for_weights(device: torch.device) -> float:
    """Return the bytes of weights that fit on a device and leave room for activations.

    Call it before the first weights are loaded. Infinite for the host, which swaps.
    """
    if device.type != "cuda":
        return math.inf
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return _SHARE_FOR_WEIGHTS * free_bytes


def measure_memory() -> dict[str, dict[str, int]]:
    """Return the bytes of each GPU that this process uses: allocated, reserved and total."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    return {
        f"cuda:{index}": {
            "allocated": torch.cuda.memory_allocated(index),
            "reserved": torch.cuda.memory_reserved(index),
            "total": torch.cuda.get_device_properties(index).total_memory,
        }
        for index in range(torch.cuda.device_count())
    }


def describe(device: torch.device) -> str:
    """Return a device's name, with everything else that affects the time of its forwards."""
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else f"cpu x{torch.get_num_threads()}"
    return f"{name}, torch {torch.__version__}"
