"""FLUX.1-dev at 1024 x 1024 and 512 x 512, in 28 steps."""

import sys

from benchmarks.gpu import engine_access
from benchmarks.gpu.measurements.denoising import (
    record_curve,
    record_decodes,
    record_image,
    record_usage,
)
from benchmarks.gpu.measurements.service import Callers, Images, run_service
from benchmarks.gpu.measurements.serving import record_callers, record_overhead
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

_NAME = "flux-dev"
_LARGE_PX, _SMALL_PX = 1024, 512
_STEPS = 28
_FEW_STEPS = 8
"""Steps where many images are 1024 x 1024, which would otherwise take minutes."""

_LARGE_WIDTHS = (1, 2, 4)
_SMALL_WIDTHS = (1, 2, 4, 8)
_WARM_UP_STEPS = 4
_ATTENTION_BACKENDS = ("_native_cudnn", "_native_flash")


def eager(session: Session, recorder: Recorder) -> None:
    """Measure forwards, an image, the device's usage and decodes, without acceleration."""
    model = engine_access.load(session, _NAME)
    record_curve(session, recorder, model, "eager", _LARGE_PX, _LARGE_WIDTHS)
    record_curve(session, recorder, model, "eager", _SMALL_PX, _SMALL_WIDTHS)
    record_image(session, recorder, model, "eager", _LARGE_PX, _STEPS)
    record_usage(session, recorder, model, "eager", _SMALL_PX, _STEPS, 8)
    record_decodes(session, recorder, model, _LARGE_PX)
    transformer = engine_access.pipeline_of(model).transformer
    for backend in _ATTENTION_BACKENDS:
        with recorder.attempt("attention", backend=backend):
            transformer.set_attention_backend(backend)
            record_curve(session, recorder, model, backend, _LARGE_PX, (1,))
    with recorder.attempt("fusion"):
        transformer.set_attention_backend("native")
        transformer.fuse_qkv_projections()
        record_curve(session, recorder, model, "fused QKV", _LARGE_PX, (1,))


def regional(session: Session, recorder: Recorder) -> None:
    """Measure forwards and an image with compiled blocks."""
    _measure_variant(session, recorder, "regional", compile="regional")


def fp8(session: Session, recorder: Recorder) -> None:
    """Measure forwards and an image with compiled blocks in 8-bit floats.

    A rehearsal uses 8-bit integers instead.
    """
    if session.torchao is not None:
        sys.path.append(str(session.torchao))
    quantization = "int8" if session.is_rehearsal else "fp8"
    _measure_variant(session, recorder, "fp8", compile="regional", quantization=quantization)


def graphs(session: Session, recorder: Recorder) -> None:
    """Measure forwards with CUDA graphs at 512 x 512; larger images leave the host enough time."""
    model = engine_access.load(session, _NAME, compile="graphs")
    record_curve(session, recorder, model, "graphs", _SMALL_PX, (1, 4))


def served(session: Session, recorder: Recorder) -> None:
    """Measure the service's overhead over the bare pipeline, then several callers."""
    with run_service(session, recorder, _NAME, {}) as target, Callers(target) as callers:
        record_overhead(session, recorder, callers, _NAME, _LARGE_PX, _FEW_STEPS, 3)
        for side_px, steps, count, images in (
            (_LARGE_PX, _FEW_STEPS, 8, 8),
            (_SMALL_PX, _STEPS, 1, 2),
            (_SMALL_PX, _STEPS, 4, 8),
            (_SMALL_PX, _STEPS, 8, 8),
        ):
            asked = Images(side_px, steps, count, images)
            record_callers(session, recorder, callers, "eager", asked, _WARM_UP_STEPS)


def _measure_variant(
    session: Session, recorder: Recorder, variant: str, **acceleration: object
) -> None:
    model = engine_access.load(session, _NAME, **acceleration)
    record_curve(session, recorder, model, variant, _LARGE_PX, _LARGE_WIDTHS)
    record_image(session, recorder, model, variant, _LARGE_PX, _STEPS)
    record_curve(session, recorder, model, variant, _SMALL_PX, (1, 4))
