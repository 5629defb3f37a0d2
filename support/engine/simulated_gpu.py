"""Simulated GPU: computes on the CPU, and records when the host would wait for a real GPU.

Its tensors wrap ordinary ones and report the device "lazy". Every build of torch knows it, and
neither this project nor diffusers treats it specially. A dispatch mode sees every operation. It
tracks which results live on the device and refuses operands that CUDA would refuse. It records
operations that would synchronise: values read by the host, shapes that depend on values, and
blocking copies between host and device.
"""

import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from safelight_service.engine import hardware

DEVICE = torch.device("lazy", 0)

_READS = frozenset({"_local_scalar_dense", "equal", "is_nonzero", "_linalg_check_errors"})
_SHAPED_BY_VALUES = frozenset(
    {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
)
_INDEXED = frozenset({"index", "index_put", "index_put_", "_index_put_impl_"})
_SOURCES = ("/diffusers/", "/transformers/", "/safelight_service/")


class Wait(NamedTuple):
    """Wait of the host for the device: its kind, and the innermost lines that caused it."""

    kind: str
    where: str


class DeviceTensor(torch.Tensor):
    """Tensor of the simulated GPU, computed on the host."""

    on_host: torch.Tensor

    @staticmethod
    def __new__(cls: Any, values: torch.Tensor) -> "DeviceTensor":
        """Wrap a CPU tensor."""
        made: DeviceTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=DEVICE,
        )
        return made

    def __init__(self, values: torch.Tensor) -> None:
        self.on_host = values

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.on_host})"

    def tolist(self) -> Any:
        """Copy to the host first; torch's own method refuses subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        raise AssertionError(f"{func} ran outside of the simulation")


class SimulatedGpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs operations in one thread, and records the waits."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[Wait] = []
        self._pinned: dict[int, torch.Tensor] = {}
        """Pinned tensors by address; kept, so that no other tensor gets their addresses."""

    @property
    def kinds(self) -> Counter[str]:
        """Number of waits by kind."""
        return Counter(wait.kind for wait in self.waits)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = [each for each in pytree.tree_leaves((args, named)) if _is_tensor(each)]
        if name == "_pin_memory":
            pinned = args[0].clone()
            self._pinned[pinned.data_ptr()] = pinned
            return pinned
        if named.pop("pin_memory", False):
            pinned = func(*args, **named)
            self._pinned[pinned.data_ptr()] = pinned
            return pinned
        target = named.get("device")
        if target is not None:
            named["device"] = torch.device("cpu")
        is_on_device = any(isinstance(each, DeviceTensor) for each in tensors)
        if name in ("_to_copy", "copy_"):
            is_on_device = self._note_copy(name, args, named, target)
        else:
            self._note(name, args, tensors, is_on_device)
            if target is not None:
                is_on_device = torch.device(target).type == DEVICE.type
        with torch.inference_mode(mode=False):
            result = func(*pytree.tree_map(_unwrap, args), **pytree.tree_map(_unwrap, named))
            if func._schema.is_mutable and name.endswith("_"):
                return args[0]
            return pytree.tree_map(_wrap, result) if is_on_device else result

    def _note_copy(
        self, name: str, args: Sequence[Any], named: Mapping[str, Any], target: Any
    ) -> bool:
        """Record a copy if it blocks; return whether its target is on the device."""
        source = args[0] if name == "_to_copy" else args[1]
        from_device = isinstance(source, DeviceTensor)
        if name == "copy_":
            to_device = isinstance(args[0], DeviceTensor)
            is_blocking = not (args[2] if len(args) > 2 else named.get("non_blocking", False))
        else:
            to_device = from_device if target is None else torch.device(target).type == DEVICE.type
            is_blocking = not named.get("non_blocking", False)
        if from_device and not to_device:
            is_queued = name == "copy_" and not is_blocking and self._is_pinned(args[0])
            if not is_queued:
                self._wait("device to host")
        if to_device and not from_device and (is_blocking or not self._is_pinned(source)):
            self._wait("host to device")
        return to_device

    def _is_pinned(self, on_host: torch.Tensor) -> bool:
        return on_host.data_ptr() in self._pinned

    def _note(
        self, name: str, args: Sequence[Any], tensors: Sequence[Any], is_on_device: bool
    ) -> None:
        if not is_on_device:
            return
        if name in _READS or name in _SHAPED_BY_VALUES:
            self._wait(name.strip("_"))
        elif name in _INDEXED:
            indices = [each for each in args[1] if each is not None]
            if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
                self._wait("nonzero")
            elif not all(isinstance(each, DeviceTensor) for each in indices):
                self._wait("host to device")
        else:
            strangers = [
                each for each in tensors if not isinstance(each, DeviceTensor) and each.ndim
            ]
            if strangers:
                raise RuntimeError(f"{name}: expected all tensors to be on the same device")

    def _wait(self, kind: str) -> None:
        lines = [
            f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_stack()
            if any(source in frame.filename for source in _SOURCES)
        ]
        self.waits.append(Wait(kind, " < ".join(reversed(lines[-3:]))))


@dataclass
class SimulatedEvent:
    """Replacement for torch.cuda.Event on a device that finishes all work at once."""

    enable_timing: bool = False

    def record(self, stream: object = None) -> None:
        """Do nothing."""

    def synchronize(self) -> None:
        """Do nothing."""

    def elapsed_time(self, other: "SimulatedEvent") -> float:
        """Return a constant number of milliseconds."""
        return 1.0


@contextmanager
def simulate_gpu(patch: pytest.MonkeyPatch) -> Iterator[SimulatedGpu]:
    """Simulate a GPU that the engine treats as an asynchronous device."""
    patch.setattr(hardware, "is_asynchronous", lambda device: device.type == DEVICE.type)
    patch.setattr(hardware, "make_event", lambda device, *, is_timed=True: SimulatedEvent())
    patch.setattr(hardware, "describe", lambda device: "simulated")
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # make torch.tensor(..., device=...) a copy
    try:
        with SimulatedGpu() as gpu:
            yield gpu
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def move(pipeline: Any) -> None:
    """Move all modules of a pipeline to the simulated GPU."""
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            for module in component.modules():
                _move_module(module)


def _move_module(module: torch.nn.Module) -> None:
    for name, parameter in module._parameters.items():
        if parameter is not None:
            moved: Any = DeviceTensor(parameter.data)
            moved._is_param = True
            module._parameters[name] = moved
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = DeviceTensor(buffer)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _unwrap(value: Any) -> Any:
    return value.on_host if isinstance(value, DeviceTensor) else value


def _wrap(value: Any) -> Any:
    return DeviceTensor(value) if isinstance(value, torch.Tensor) else value
