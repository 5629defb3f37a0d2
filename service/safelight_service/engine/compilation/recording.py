"""Recording: how a forward of one fixed shape is compiled, and run again and again.

On a GPU it is a CUDA graph: one launch in place of thousands, from and to the same memory. On a
CPU, where a launch costs next to nothing, it is the compiled call itself.
"""

import threading
import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

Run = Callable[[], Any]
"""Runs a forward from its static inputs; what it returns is overwritten by the next run."""

_WARM_UPS = 3
"""Runs before a capture: the first compiles, and libraries make their handles at the first few."""


class Compiler:
    """Compiles forwards, and counts how often it was asked to; a backend of torch.compile."""

    def __init__(self, backend: str = "inductor") -> None:
        self.count = 0
        self._backend: Any = torch._dynamo.lookup_backend(backend)

    def __call__(self, graph: Any, inputs: Any) -> Any:
        """Compile a graph."""
        self.count += 1
        return self._backend(graph, inputs)


class StaticForward:
    """A module's forward for one shape: compiled, with inputs that stay where they are.

    It is compiled as one graph or not at all, so it never waits for the device halfway.
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
        """Run it on the inputs."""
        return self._compiled(**self.inputs)

    def load(self, arguments: Mapping[str, Any]) -> None:
        """Overwrite the inputs."""
        for name, buffer in self.inputs.items():
            _fill(buffer, arguments[name])


class Recorder(Protocol):
    """What a device does with a forward that will be run often."""

    def warm_up(self, run: Run) -> None:
        """Run it until it is compiled, and nothing is done for the first time any more."""

    def record(self, run: Run) -> Run:
        """Return what runs it from now on."""


class CallRecorder:
    """Calls it: for devices where launching costs next to nothing."""

    def warm_up(self, run: Run) -> None:
        """Run it once."""
        run()

    def record(self, run: Run) -> Run:
        """Return the forward itself."""
        return run


class CudaRecorder:
    """Captures CUDA graphs, which share one pool of memory: only one of them runs at a time."""

    _capturing: ClassVar[threading.Lock] = threading.Lock()
    """CUDA knows one capture at a time in a process, and each device has a thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def warm_up(self, run: Run) -> None:
        """Run it a few times, beside the current stream, as a capture asks for."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                run()
        current.wait_stream(self._stream)

    def record(self, run: Run) -> Run:
        """Capture it; what is returned keeps the graph, and so its memory."""
        graph = torch.cuda.CUDAGraph()
        # A pool ends with the last of its graphs, and must not be asked for then.
        pool = next((other.pool() for other in self._graphs), None)
        with (
            self._capturing,
            torch.cuda.device(self._device),
            # Other threads, which copy finished pictures, may go on with that.
            torch.cuda.graph(graph, pool, self._stream, capture_error_mode="thread_local"),
        ):
            output = run()
        self._graphs.add(graph)

        def replay() -> Any:
            graph.replay()
            return output

        return replay


def make_recorder(device: torch.device) -> Recorder:
    """Return what suits a device."""
    return CudaRecorder(device) if device.type == "cuda" else CallRecorder()


def _isolate(module: Any) -> Callable[..., Any]:
    """Return a function that calls the module, with a code object of its own.

    That is what torch ties its compiled code to. So one shape's ends with it, is looked up among
    no others, and does not count towards the limit above which torch stops to compile.
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
            buffer.copy_(value, non_blocking=True)  # from the host, too: it is staged at once
        case Mapping():
            for name, inner in buffer.items():
                _fill(inner, value[name])
        case list() | tuple():
            for inner, item in zip(buffer, value, strict=True):
                _fill(inner, item)
