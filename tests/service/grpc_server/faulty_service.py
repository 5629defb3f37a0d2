"""Faulty service: its device or loading fails in the way named by the first argument."""

import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

from safelight_service import cli
from safelight_service.engine import engine, hardware
from safelight_service.engine.models import loading


def hang(*_: Any) -> None:
    """Never return, like a kernel that waits forever."""
    threading.Event().wait()


def hang_while_loading(*_: Any, **__: Any) -> None:
    """Report the start of loading, and never return."""
    print("loading", flush=True)
    hang()


def lose_device(*_: Any) -> None:
    """Fail as after an illegal memory access, after which nothing works on the device."""
    hardware.is_answering = lambda device: False
    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def on_forward(fault: Callable[..., None]) -> Callable[..., Any]:
    """Call a function in each forward of the models loaded from now on."""

    def load_faulty(*arguments: Any, **options: Any) -> Any:
        model = loading.load_model(*arguments, **options)
        model.denoiser.register_forward_pre_hook(fault)
        return model

    return load_faulty


FAULTS = {
    "hang": on_forward(hang),
    "hang-while-loading": hang_while_loading,
    "lose-device": on_forward(lose_device),
}

if __name__ == "__main__":
    vars(engine).update(load_model=FAULTS[sys.argv.pop(1)])
    cli.main()
