"""Hardware: properties of devices, with a fake GPU on the test's clock as the asynchronous one."""

import contextlib
import math
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from safelight_service.engine.hardware import (
    RunAhead,
    Span,
    is_answering,
    is_out_of_memory,
    memory_for_weights,
    on_side_stream,
)
from support.thread_clock import set_clock

LAUNCH_S = 0.01


class FakeGpu:
    """GPU that does one piece of work after another, while the host continues."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.free_at = 0.0
        self._ahead = RunAhead()
        self.noted: list[float] = []
        """Seconds of each piece of work."""
        set_clock(patch, lambda: self.now)
        patch.setattr(torch.cuda, "current_stream", lambda device: None)
        patch.setattr(torch.cuda, "Event", lambda enable_timing: _Mark(self))

    def work(self, seconds: float, uses: object = None) -> None:
        """Submit work of some seconds."""
        span = self._ahead.begin(torch.device("cuda"), self.noted.append, uses)
        self.now += LAUNCH_S
        self.free_at = max(self.now, self.free_at) + seconds
        self._ahead.end(span)

    def end_step(self) -> None:
        """Wait as the device thread does at the end of a turn."""
        self._ahead.end_step()

    def catch_up(self) -> None:
        """Wait for all work."""
        self._ahead.catch_up()

    @property
    def unfinished(self) -> Sequence[Span]:
        """Work that the host has not waited for."""
        return self._ahead.unfinished

    @property
    def behind_s(self) -> float:
        """Seconds of unfinished work."""
        return self.free_at - self.now


class _Mark:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu
        self.happens_at = 0.0

    def record(self, stream: object) -> None:
        self.happens_at = max(self._gpu.now, self._gpu.free_at)

    def synchronize(self) -> None:
        self._gpu.now = max(self._gpu.now, self.happens_at)

    def elapsed_time(self, other: "_Mark") -> float:
        return 1e3 * (other.happens_at - self.happens_at)


def test_host_is_never_ahead_of_a_gpu_by_more_than_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(monkeypatch)
    for _ in range(5):
        gpu.work(1.0)
        gpu.work(0.5)
        gpu.end_step()
        assert gpu.behind_s <= 1.5
    gpu.catch_up()
    assert gpu.behind_s == 0


def test_a_gpu_has_work_while_the_host_prepares_more(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch)
    for _ in range(5):
        gpu.work(1.0)
        gpu.end_step()
        assert gpu.behind_s >= 1.0 - LAUNCH_S


def test_seconds_of_work_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """They include neither the launch nor earlier work."""
    gpu = FakeGpu(monkeypatch)
    for seconds in (1.0, 3.0, 2.0):
        gpu.work(seconds)
        gpu.end_step()
    gpu.catch_up()
    assert gpu.noted == pytest.approx([1.0, 3.0, 2.0], abs=2 * LAUNCH_S)


def test_the_seconds_of_work_can_be_measured_before_later_work_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(monkeypatch)
    gpu.work(1.0)
    gpu.work(5.0)
    first, _ = gpu.unfinished
    assert first.measure() == pytest.approx(1.0, abs=2 * LAUNCH_S)
    assert gpu.behind_s == pytest.approx(5.0, abs=2 * LAUNCH_S)
    assert gpu.noted == []
    gpu.catch_up()
    assert gpu.noted == pytest.approx([1.0, 5.0], abs=2 * LAUNCH_S)


def test_weights_stay_in_memory_until_the_work_with_them_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(monkeypatch)
    weights = torch.nn.Module()
    gpu.work(1.0, uses=weights)
    are_there = weakref.ref(weights)
    del weights
    gpu.end_step()
    assert are_there()
    gpu.work(1.0)
    gpu.end_step()
    assert not are_there()


def test_time_in_which_nothing_was_asked_of_a_gpu_counts_for_no_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(monkeypatch)
    gpu.work(1.0)
    gpu.catch_up()
    gpu.now += 60.0
    gpu.work(1.0)
    gpu.catch_up()
    assert gpu.noted == pytest.approx([1.0, 1.0], abs=2 * LAUNCH_S)


def test_a_device_is_asked_for_the_simplest_operation() -> None:
    assert is_answering(torch.device("cpu"))
    assert not is_answering(torch.device("meta"))  # computes nothing


ASYNCHRONOUS = (
    "\nCUDA kernel errors might be asynchronously reported at some other API call, so the "
    "stacktrace below might be incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
)
OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    torch.AcceleratorError(f"CUDA error: out of memory{ASYNCHRONOUS}"),
    RuntimeError(f"CUDA error: out of memory{ASYNCHRONOUS}"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"),
    RuntimeError("MPS backend out of memory (MPS allocated: 5.56 GB, other allocations: 1.10 GB, "),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
    RuntimeError("cuDNN Frontend error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError(
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"
    ),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 6576668672 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError(
        'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":1131, '
        "please report a bug to PyTorch."
    ),
]
SOMETHING_ELSE = [
    RuntimeError("something else"),
    torch.AcceleratorError(f"CUDA error: an illegal memory access was encountered{ASYNCHRONOUS}"),
    RuntimeError(f"CUDA error: device-side assert triggered{ASYNCHRONOUS}"),
    RuntimeError("CUDA error: too many resources requested for launch"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("out of resource: shared memory, Required: 131072, Hardware limit: 101376"),
    RuntimeError("index 7 is out of memory bounds"),
    RuntimeError("NCCL error: NVML_SUCCESS == r INTERNAL ASSERT FAILED elsewhere"),
    ValueError("CUDA out of memory"),
    OSError("a file is out of memory"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:48])
def test_memory_runs_out_in_different_words(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", SOMETHING_ELSE, ids=lambda error: str(error)[:48])
def test_other_errors_are_not_taken_for_a_lack_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_host_without_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as refusal:
        torch.empty(2**50)
    assert is_out_of_memory(refusal.value)


def test_weights_may_take_most_of_a_gpu_and_all_of_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gib = 2**30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * gib, 96 * gib))
    assert memory_for_weights(torch.device("cuda", 0)) == pytest.approx(64 * gib)
    assert memory_for_weights(torch.device("cpu")) == math.inf


def test_a_thread_keeps_its_side_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch has 32 streams: further ones would be those of device threads and captures."""
    made: list[object] = []

    class Stream:
        def __init__(self, device: torch.device) -> None:
            made.append(self)

        def wait_event(self, event: object) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)

    def copy_pictures() -> None:
        for device in ("cuda:0", "cuda:1", "cuda:0", "cuda:1"):
            with on_side_stream(torch.device(device), after=None):
                pass

    for _ in range(2):
        with ThreadPoolExecutor(1) as thread:
            thread.submit(copy_pictures).result()
    assert len(made) == 4
