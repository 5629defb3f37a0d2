"""Recording: compiles a forward of one fixed shape, and records it for fast replays.

On a GPU the record is a CUDA graph: one launch in place of thousands, from and to fixed memory. On
a CPU, where launches are cheap, it is the compiled function itself.
"""

import threading
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

Run = Callable[[], Any]
"""Runs a forward on its static inputs; the next run overwrites the output."""

_WARM_UPS = 3
"""Runs before a capture: the first compiles, and libraries make their handles in the first few."""


class Compiler:
    """A backend of torch.compile that counts its compilations."""

    def __init__(self, backend: str = "inductor") -> None:
        self.count = 0
        self._backend: Any = torch._dynamo.lookup_backend(backend)

    def __call__(self, graph: Any, inputs: Any) -> Any:
        """Compile a graph."""
        self.count += 1
        return self._backend(graph, inputs)


class StaticForward:
    """A module's compiled forward for one shape, with inputs at fixed addresses.

    It is compiled as a single graph, so it never waits for the device halfway.
    """

    def __init__(
        self, module: Any, arguments: Mapping[str, Any], device: torch.device, backend: str
    ) -> None:
        """Copy the arguments to the device; the first run compiles."""
        self.inputs: dict[str, Any] = {
            name: _hold(value, device) for name, value in arguments.items()
        }
        self.compiler = Compiler(backend)
        self._compiled: Callable[..., Any] = torch.compile(
            _isolate(module), fullgraph=True, dynamic=False, backend=self.compiler
        )

    def run(self) -> Any:
        """Run the forward on the inputs."""
        return self._compiled(**self.inputs)

    def load(self, arguments: Mapping[str, Any]) -> None:
        """Overwrite the inputs."""
        for name, buffer in self.inputs.items():
            _fill(buffer, arguments[name])


class Recorder(Protocol):
    """Prepares a forward for many runs on a device."""

    def warm_up(self, run: Run) -> None:
        """Run the forward until it is compiled and all one-time work is done."""

    def record(self, run: Run) -> Run:
        """Return a function that runs the forward fast."""


class CallRecorder:
    """Keeps the forward as it is, for devices with cheap launches."""

    def warm_up(self, run: Run) -> None:
        """Run the forward once."""
        run()

    def record(self, run: Run) -> Run:
        """Return the forward itself."""
        return run


class CudaRecorder:
    """Captures CUDA graphs, which share one memory pool, since one of them runs at a time."""

    _capturing: ClassVar[threading.Lock] = threading.Lock()
    """CUDA allows one capture at a time in a process, and each device has a thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def warm_up(self, run: Run) -> None:
        """Run the forward a few times on the stream of the capture."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                run()
        current.wait_stream(self._stream)

    def record(self, run: Run) -> Run:
        """Capture the forward; the returned function owns the graph and its memory."""
        graph = torch.cuda.CUDAGraph()
        # A pool ends with its last graph, so take it from one that is alive.
        pool = next((other.pool() for other in self._graphs), None)
        with (
            self._capturing,
            torch.cuda.device(self._device),
            # Other threads may copy finished pictures meanwhile.
            torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"),
        ):
            output = run()
        self._graphs.add(graph)

        def replay() -> Any:
            graph.replay()
            return output

        return replay


def make_recorder(device: torch.device) -> Recorder:
    """Return the recorder for a device."""
    return CudaRecorder(device) if device.type == "cuda" else CallRecorder()


def _isolate(module: Any) -> Callable[..., Any]:
    """Return a function that calls the module and has its own code object.

    torch ties compiled code to the code object. So the code of a shape is freed with it, and is
    found without a search. It does not count towards torch's limit on recompilations.
    """

    def forward(**arguments: Any) -> Any:
        return module(**arguments)

    return types.FunctionType(
        forward.__code__.replace(), forward.__globals__, "forward", None, forward.__closure__
    )


def _hold(value: Any, device: torch.device) -> Any:
    """Copy a value with all its tensors to a device."""
    match value:
        case Tensor():
            return torch.empty(value.shape, dtype=value.dtype, device=device).copy_(value)
        case Mapping():
            return {name: _hold(item, device) for name, item in value.items()}
        case list() | tuple():
            return type(value)(_hold(item, device) for item in value)
    return value


def _fill(buffer: Any, value: Any) -> None:
    match buffer:
        case Tensor():
            buffer.copy_(
                value, non_blocking=True
            )  # safe from the host, too: CUDA stages pageable memory at once
        case Mapping():
            for name, inner in buffer.items():
                _fill(inner, value[name])
        case list() | tuple():
            for inner, item in zip(buffer, value, strict=True):
                _fill(inner, item)
