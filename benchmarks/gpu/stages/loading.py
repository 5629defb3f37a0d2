"""Loading: seconds to bring the denoiser of SDXL to the device, by way."""

import functools
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.architectures import make_pipeline
from benchmarks.gpu.measurements import timing
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

_NAME = "sdxl"
_GIB = 2**30


def measure(session: Session, recorder: Recorder) -> None:
    """Write the denoiser, then load it: to the host and on, as the service does, and directly.

    The system still holds the files in memory, so the disk does not count.
    """
    device = torch.device(session.device)
    with tempfile.TemporaryDirectory() as folder:
        pipeline: Any = make_pipeline(_NAME, device, shrunk=session.is_rehearsal)
        denoiser = pipeline.unet
        denoiser.save_pretrained(folder)
        gib = round(sum(each.nbytes for each in denoiser.parameters()) / _GIB, 2)
        load = functools.partial(type(denoiser).from_pretrained, folder, torch_dtype=denoiser.dtype)
        ways: dict[str, Callable[[], object]] = {
            "by the host": lambda: load().to(device),
            "directly": lambda: load(device_map={"": device}),
        }
        del pipeline, denoiser
        for way, run in ways.items():
            with recorder.figure("load", way=way, gib=gib) as figure:
                timed = [timing.time_once(session, run)[0] for _ in range(2)]
                figure["first_s"], figure["second_s"] = (round(seconds, 2) for seconds in timed)
