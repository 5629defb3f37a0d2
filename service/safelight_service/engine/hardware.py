"""Hardware: what sets one device apart from another, for the few places that have to know.

A GPU works asynchronously, memory runs out in different words, and some errors are for good.
"""

import gc
import re
import time
from collections import deque
from collections.abc import Callable

import torch


class RunAhead:
    """Keeps the host at most one forward ahead of a device that works asynchronously.

    Otherwise progress would be told, and cancellations heeded, long before the device has
    caught up. So it also sees when each forward ends, and how long it took.
    """

    def __init__(self) -> None:
        self._under_way: deque[tuple[torch.cuda.Event | None, float, Callable[[float], None]]]
        self._under_way = deque()
        self._ended_at = 0.0

    def bound(self, device: torch.device, began_at: float, note: Callable[[float], None]) -> None:
        """Wait for all but the forward that has just been begun; `note` is told its seconds."""
        mark = None
        if device.type == "cuda":
            mark = torch.cuda.Event()  # type: ignore[no-untyped-call]
            mark.record(torch.cuda.current_stream(device))
        self._under_way.append((mark, began_at, note))
        self.catch_up(0 if mark is None else 1)

    def catch_up(self, most: int = 0) -> None:
        """Wait until no more forwards than that are under way."""
        while len(self._under_way) > most:
            mark, began_at, note = self._under_way.popleft()
            if mark is not None:
                mark.synchronize()
            now = time.monotonic()
            note(now - max(began_at, self._ended_at))
            self._ended_at = now


def synchronize(device: torch.device) -> None:
    """Return when a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
