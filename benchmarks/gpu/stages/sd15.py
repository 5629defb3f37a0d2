"""Stable Diffusion 1.5 at 512 x 512 in 30 steps."""

from benchmarks.gpu import engine_access
from benchmarks.gpu.measurements.denoising import record_curve, record_decodes, record_usage
from benchmarks.gpu.measurements.service import Callers, Images, run_service
from benchmarks.gpu.measurements.serving import record_callers, record_overhead
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

_NAME = "sd15"
_SIDE_PX = 512
_STEPS = 30
_WIDTHS = (1, 2, 4, 8, 16)


def eager(session: Session, recorder: Recorder) -> None:
    """Measure forwards, the device's usage and decodes as diffusers runs them."""
    model = engine_access.load(session, _NAME)
    record_curve(session, recorder, model, "eager", _SIDE_PX, _WIDTHS)
    record_usage(session, recorder, model, "eager", _SIDE_PX, _STEPS, 24)
    record_decodes(session, recorder, model, _SIDE_PX)
    with recorder.attempt("load", variant="channels_last"):
        model = engine_access.load(session, _NAME, channels_last=True)
        record_curve(session, recorder, model, "channels_last", _SIDE_PX, (1, 8))


def graphs(session: Session, recorder: Recorder) -> None:
    """Measure forwards and the device's usage with CUDA graphs."""
    model = engine_access.load(session, _NAME, compile="graphs")
    record_curve(session, recorder, model, "graphs", _SIDE_PX, _WIDTHS)
    record_usage(session, recorder, model, "graphs", _SIDE_PX, _STEPS, 24)


def served(session: Session, recorder: Recorder) -> None:
    """Measure the service next to the bare pipeline."""
    with run_service(session, recorder, _NAME, {}) as target, Callers(target) as callers:
        record_overhead(session, recorder, callers, _NAME, _SIDE_PX, _STEPS, 5)
        for count, images in ((1, 4), (8, 24), (16, 32)):
            asked = Images(_SIDE_PX, _STEPS, count, images)
            record_callers(session, recorder, callers, "eager", asked, _STEPS)


def served_graphs(session: Session, recorder: Recorder) -> None:
    """Measure the service with CUDA graphs."""
    acceleration = {"compile": "graphs"}
    with run_service(session, recorder, _NAME, acceleration) as target, Callers(target) as callers:
        for count, images in ((1, 4), (8, 32), (16, 32)):
            asked = Images(_SIDE_PX, _STEPS, count, images)
            record_callers(session, recorder, callers, "graphs", asked, _STEPS)
