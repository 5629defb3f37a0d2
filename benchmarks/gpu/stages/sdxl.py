"""Stable Diffusion XL at 1024 x 1024 in 20 steps."""

from benchmarks.gpu import engine_access
from benchmarks.gpu.measurements.denoising import record_curve, record_decodes, record_usage
from benchmarks.gpu.measurements.service import Callers, Images, run_service
from benchmarks.gpu.measurements.serving import record_callers, record_overhead
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

_NAME = "sdxl"
_SIDE_PX = 1024
_STEPS = 20
_WIDTHS = (1, 2, 4, 8)
_WARM_UP_STEPS = 6


def eager(session: Session, recorder: Recorder) -> None:
    """Measure forwards, the device's usage and decodes as diffusers runs them."""
    model = engine_access.load(session, _NAME)
    record_curve(session, recorder, model, "eager", _SIDE_PX, _WIDTHS)
    record_usage(session, recorder, model, "eager", _SIDE_PX, _STEPS, 10)
    record_decodes(session, recorder, model, _SIDE_PX)
    with recorder.attempt("load", variant="channels_last"):
        model = engine_access.load(session, _NAME, channels_last=True)
        record_curve(session, recorder, model, "channels_last", _SIDE_PX, (1, 4))


def graphs(session: Session, recorder: Recorder) -> None:
    """Measure forwards with CUDA graphs."""
    model = engine_access.load(session, _NAME, compile="graphs")
    record_curve(session, recorder, model, "graphs", _SIDE_PX, _WIDTHS)


def served(session: Session, recorder: Recorder) -> None:
    """Measure the service next to the bare pipeline."""
    with run_service(session, recorder, _NAME, {}) as target, Callers(target) as callers:
        record_overhead(session, recorder, callers, _NAME, _SIDE_PX, _STEPS, 3)
        for count, images in ((1, 2), (8, 16), (16, 16)):
            asked = Images(_SIDE_PX, _STEPS, count, images)
            record_callers(session, recorder, callers, "eager", asked, _WARM_UP_STEPS)
