"""Card: the limits of the GPU, for comparison."""

import torch

from benchmarks.gpu.measurements import timing
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

_SIDE = 8192
_COPIED_BYTES = 2 << 30
_LAUNCHES = 1000


def measure(session: Session, recorder: Recorder) -> None:
    """Measure bfloat16 arithmetic, memory bandwidth, and the host's time to launch an operation."""
    device = session.device
    shrink = 16 if session.is_rehearsal else 1
    with recorder.figure("arithmetic") as figure:
        side = _SIDE // shrink
        left, right = (
            torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2)
        )
        timed = timing.measure(session, lambda: left @ right, 10)
        figure["tflops"] = round(2 * side**3 / timed.median_s / 1e12, 3)
    with recorder.figure("bandwidth") as figure:
        byte_count = _COPIED_BYTES // shrink**2
        source = torch.empty(byte_count, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        timed = timing.measure(session, lambda: target.copy_(source), 10)
        figure["tb_per_s"] = round(2 * byte_count / timed.median_s / 1e12, 3)
    with recorder.figure("launch") as figure:
        number = torch.ones(1, device=device)
        timed = timing.measure(session, lambda: [number.add(1) for _ in range(_LAUNCHES)], 3)
        figure["us"] = round(1e6 * timed.launch_s / _LAUNCHES, 2)
