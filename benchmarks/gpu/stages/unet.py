"""Stages of Stable Diffusion 1.5 and XL, which differ only in sizes and counts."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.gpu import engine_access
from benchmarks.gpu.measurements.denoising import record_curve, record_decodes, record_usage
from benchmarks.gpu.measurements.service import Callers, Images, run_service
from benchmarks.gpu.measurements.serving import record_callers, record_overhead
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

Crowds = Sequence[tuple[int, int]]
"""Numbers of simultaneous callers, each with the number of images they share."""


@dataclass(frozen=True, slots=True)
class UnetStages:
    """Stages of one architecture with a UNet."""

    name: str
    side_px: int
    steps: int
    widths: Sequence[int]
    variant_widths: Sequence[int]
    turns: int
    """Forwards under the profiler, without acceleration."""
    graph_turns: int
    """The same with CUDA graphs; 0 skips them."""
    rounds: int
    """Rounds of the bare pipeline and the service in turns."""
    warm_up_steps: int
    crowds: Crowds
    graph_crowds: Crowds = ()

    def eager(self, session: Session, recorder: Recorder) -> None:
        """Measure forwards, the device's usage and decodes, without acceleration."""
        model = engine_access.load(session, self.name)
        record_curve(session, recorder, model, "eager", self.side_px, self.widths)
        record_usage(session, recorder, model, "eager", self.side_px, self.steps, self.turns)
        record_decodes(session, recorder, model, self.side_px)
        widths = self.variant_widths
        with recorder.attempt("fusion"):
            engine_access.pipeline_of(model).unet.fuse_qkv_projections()
            record_curve(session, recorder, model, "fused QKV", self.side_px, widths)
        variant = "channels_last"
        with recorder.attempt("load", variant=variant):
            model = engine_access.load(session, self.name, channels_last=True)
            record_curve(session, recorder, model, variant, self.side_px, widths)

    def graphs(self, session: Session, recorder: Recorder) -> None:
        """Measure forwards, and the device's usage if asked, with CUDA graphs."""
        model = engine_access.load(session, self.name, compile="graphs")
        record_curve(session, recorder, model, "graphs", self.side_px, self.widths)
        if self.graph_turns:
            size = self.side_px, self.steps
            record_usage(session, recorder, model, "graphs", *size, self.graph_turns)

    def served(self, session: Session, recorder: Recorder) -> None:
        """Measure the service's overhead over the bare pipeline, then several callers."""
        with run_service(session, recorder, self.name, {}) as target, Callers(target) as callers:
            size = self.side_px, self.steps
            record_overhead(session, recorder, callers, self.name, *size, self.rounds)
            self._record_crowds(session, recorder, callers, "eager", self.crowds)

    def served_graphs(self, session: Session, recorder: Recorder) -> None:
        """Measure several callers of the service with CUDA graphs."""
        graphs = {"compile": "graphs"}
        with (
            run_service(session, recorder, self.name, graphs) as target,
            Callers(target) as callers,
        ):
            self._record_crowds(session, recorder, callers, "graphs", self.graph_crowds)

    def _record_crowds(
        self, session: Session, recorder: Recorder, callers: Callers, variant: str, crowds: Crowds
    ) -> None:
        for count, image_count in crowds:
            images = Images(self.side_px, self.steps, count, image_count)
            record_callers(session, recorder, callers, variant, images, self.warm_up_steps)


SD15 = UnetStages(
    "sd15",
    side_px=512,
    steps=30,
    widths=(1, 2, 4, 8, 16),
    variant_widths=(1, 8),
    turns=24,
    graph_turns=24,
    rounds=5,
    warm_up_steps=30,
    crowds=((1, 4), (8, 24), (16, 32)),
    graph_crowds=((1, 4), (8, 32), (16, 32)),
)
SDXL = UnetStages(
    "sdxl",
    side_px=1024,
    steps=20,
    widths=(1, 2, 4, 8),
    variant_widths=(1, 4),
    turns=10,
    graph_turns=0,
    rounds=3,
    warm_up_steps=6,
    crowds=((1, 2), (8, 16), (16, 16)),
)
