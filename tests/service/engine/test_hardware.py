"""What is known of devices; of asynchronous ones by a GPU that works by a clock of the test's."""

import time

import pytest
import torch

from safelight_service.engine.hardware import RunAhead, is_answering, is_out_of_memory

LAUNCH_S = 0.01


class FakeGpu:
    """Does one thing after another, while the host goes on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._free_at = 0.0
        self._ahead = RunAhead()
        self.told: list[float] = []
        """Seconds that forwards have taken, as the host sees it."""
        patch.setattr(time, "monotonic", lambda: self.now)
        patch.setattr(torch.cuda, "current_stream", lambda device: None)
        patch.setattr(torch.cuda, "Event", lambda: _Mark(self))

    def forward(self, seconds: float) -> None:
        """Begin a forward that takes so many seconds."""
        began_at = self.now
        self.now += LAUNCH_S
        self._free_at = max(self.now, self._free_at) + seconds
        self._ahead.bound(torch.device("cuda"), began_at, self.told.append)

    def catch_up(self) -> None:
        """Wait for all forwards."""
        self._ahead.catch_up()

    @property
    def behind_s(self) -> float:
        """Seconds of work that it has still to do."""
        return self._free_at - self.now


class _Mark:
    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def record(self, stream: object) -> None:
        self._happens_at = self._gpu._free_at

    def synchronize(self) -> None:
        self._gpu.now = max(self._gpu.now, self._happens_at)


def test_host_is_never_ahead_of_a_gpu_by_more_than_a_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(monkeypatch)
    for _ in range(5):
        gpu.forward(1.0)
        assert gpu.behind_s <= 1.0
    gpu.catch_up()
    assert gpu.behind_s == 0


def test_seconds_of_a_forward_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those of launching it, nor those of the one before it."""
    gpu = FakeGpu(monkeypatch)
    for seconds in (1.0, 3.0, 2.0):
        gpu.forward(seconds)
    gpu.catch_up()
    assert gpu.told == pytest.approx([1.0, 3.0, 2.0], abs=2 * LAUNCH_S)


def test_time_in_which_nothing_was_asked_of_a_gpu_counts_for_no_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gpu = FakeGpu(monkeypatch)
    gpu.forward(1.0)
    gpu.catch_up()
    gpu.now += 60.0
    gpu.forward(1.0)
    gpu.catch_up()
    assert gpu.told == pytest.approx([1.0, 1.0], abs=2 * LAUNCH_S)


def test_a_device_is_asked_for_the_simplest_thing() -> None:
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
