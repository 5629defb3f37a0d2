"""Hardware: what sets one device apart from another, for the few places that have to know.

A GPU works asynchronously, memory runs out in different words, and some errors are for good.
"""

import contextlib
import gc
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor


class Event(Protocol):
    """A mark in a device's queue of work, as torch.cuda.Event."""

    def record(self, stream: Any = None) -> None:
        """Put it into the queue."""

    def synchronize(self) -> None:
        """Wait until the device has come to it."""

    def elapsed_time(self, other: Any) -> float:
        """Milliseconds from this event to a later one, after both have happened."""


def is_asynchronous(device: torch.device) -> bool:
    """Whether a device queues its work while the host goes on."""
    return device.type == "cuda"


def make_event(device: torch.device) -> Event:
    """Make an event of an asynchronous device that knows its time."""
    event: Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    return event


def mark(device: torch.device) -> Event:
    """Put an event at the end of the work that the current stream of a device was given."""
    event = make_event(device)
    event.record(torch.cuda.current_stream(device) if device.type == "cuda" else None)
    return event


def pin(tensor: Tensor) -> Tensor:
    """Copy a host tensor to memory from which a device copies without making the host wait."""
    return tensor.pin_memory()


def indexed(device: torch.device) -> torch.device:
    """Name a GPU by its number, so that each has one name."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def explain_absence(device: torch.device) -> str | None:
    """Say why torch cannot use a device on this machine; None: it can. Initialises no GPU."""
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


@contextlib.contextmanager
def current(device: torch.device) -> Iterator[None]:
    """Make a device the current one of this thread, with a stream of its own."""
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
def beside(device: torch.device, after: Any) -> Iterator[None]:
    """Give a device work on a stream of this thread, which begins when an event has happened.

    The current stream of the device thread is full of later steps.
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
    """Work given to a device, from its first operation to its last."""

    device: torch.device
    note: NoteSeconds
    """Gets the seconds that the device took, once it is known to have finished."""
    uses: object
    """What must stay in memory until then: weights were allocated on another stream, so torch
    would give their memory away while this one still reads them."""
    begin: Event | None
    began_at: float
    end: Event | None = None
    seconds: float | None = None
    """As noted; None before."""

    def finish(self) -> None:
        """Wait until the device has done the work."""
        if self.seconds is not None:
            return
        if self.begin is None or self.end is None:
            self.seconds = time.monotonic() - self.began_at
        else:
            self.end.synchronize()
            self.seconds = self.begin.elapsed_time(self.end) / 1e3
        self.note(self.seconds)


class RunAhead:
    """Keeps the host at most one step ahead of a device that works asynchronously.

    Otherwise progress would be reported, and cancellations heeded, long before the device has
    caught up. It also measures what the device takes for each piece of work, by events that the
    device itself records.
    """

    def __init__(self) -> None:
        self._last_step: list[Span] = []
        self._this_step: list[Span] = []

    def begin(self, device: torch.device, note: NoteSeconds, uses: object = None) -> Span:
        """Begin a piece of work on a device, with what it uses."""
        event = mark(device) if is_asynchronous(device) else None
        return Span(device, note, uses, event, time.monotonic())

    def end(self, span: Span) -> None:
        """End a piece of work; on a device that works at once, note its seconds."""
        if span.begin is None:
            span.finish()
        else:
            span.end = mark(span.device)
            self._this_step.append(span)

    def end_step(self) -> None:
        """Wait until the device has done the work of the step before this one."""
        for span in self._last_step:
            span.finish()
        self._last_step, self._this_step = self._this_step, []

    def catch_up(self) -> None:
        """Wait until the device has done all its work."""
        self.end_step()
        self.end_step()


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that this thread's stream was given."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def is_answering(device: torch.device) -> bool:
    """Whether a device still does the simplest thing.

    After some errors, such as an illegal memory access, CUDA refuses all work of the process.
    """
    try:
        torch.zeros(1, device=device).item()
    except RuntimeError as error:
        return is_out_of_memory(error)
    return True


_OUT_OF_MEMORY = re.compile(
    r"\bout of memory\b(?! bounds)"  # CUDA, its driver, HIP, XPU and MPS
    r"|_ALLOC(ATION)?_FAILED\b"  # cuBLAS, cuDNN, cuSOLVER, cuFFT and their kin of HIP
    r"|\bDefaultCPUAllocator\b"
    # An assertion that fails while torch describes how full the device is.
    r"|NVML_SUCCESS == .* INTERNAL ASSERT FAILED at .*CUDACachingAllocator",
    re.IGNORECASE,
)
"""What errors without a class of their own say. Not so cuDNN's "unable to find an engine", or
cuBLAS's NOT_INITIALIZED: too little memory is one of their causes, and not the only one."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there was not enough memory, on a device or on the host."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )


def free_memory() -> None:
    """Give back the memory of what nobody holds any more."""
    gc.collect()
    empty_cache()


def empty_cache() -> None:
    """Give back the memory that torch keeps for later, on GPUs."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_SHARE_FOR_WEIGHTS = 0.8
"""Of a GPU's free memory; the rest is for what forwards and decodes compute."""


def memory_for_weights(device: torch.device) -> float:
    """Return how many bytes of weights a device has room for beside what they compute.

    Ask before the first weights are there. Without end for the host, which swaps.
    """
    if device.type != "cuda":
        return math.inf
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return _SHARE_FOR_WEIGHTS * free_bytes


def measure_memory() -> dict[str, dict[str, int]]:
    """Return the bytes of each GPU that torch has used in this process, by their state."""
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
    """Name the device, and what else the seconds of a forward on it depend on."""
    is_cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if is_cuda else f"cpu x{torch.get_num_threads()}"
    return f"{name}, torch {torch.__version__}"
