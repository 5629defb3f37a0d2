"""Denoising: time of forwards, images and decodes in this process, without a server."""

import functools
from collections.abc import Sequence

import torch

from benchmarks.gpu import engine_access
from benchmarks.gpu.engine_access import Model
from benchmarks.gpu.measurements import timing
from benchmarks.gpu.measurements.timing import ms
from benchmarks.gpu.measurements.trace import trace
from benchmarks.gpu.recorder import Recorder
from benchmarks.gpu.session import Session

_LONGEST_GAPS = 20
_REHEARSED_WIDTHS = 2


def record_curve(
    session: Session,
    recorder: Recorder,
    model: Model,
    variant: str,
    side_px: int,
    widths: Sequence[int],
) -> None:
    """Time the denoiser's forward by width, the number of images that share it."""
    side_px = session.side(side_px)
    with recorder.attempt("first forward", variant=variant, side_px=side_px):
        call = engine_access.first_forward(model, side_px, session.few(30))
        for width in widths[:_REHEARSED_WIDTHS] if session.is_rehearsal else widths:
            with recorder.figure(
                "forward", variant=variant, side_px=side_px, width=width
            ) as figure:
                timed = timing.measure(
                    session, functools.partial(engine_access.run_forward, model, call, width)
                )
                figure["forward_ms"] = ms(timed.median_s)
                figure["launch_ms"] = ms(timed.launch_s)
                figure["first_ms"] = ms(timed.first_s)
                figure["rows"] = width * call.row_count
                figure["peak_gib"] = timed.peak_gib


def record_image(
    session: Session,
    recorder: Recorder,
    model: Model,
    variant: str,
    side_px: int,
    steps: int,
) -> None:
    """Time one image from prompt to pixels, with no other work."""
    side_px, steps = session.side(side_px), session.few(steps)
    with recorder.figure("image", variant=variant, side_px=side_px, steps=steps) as figure:
        engine_access.draw(model, side_px, 2)  # compiles the parts that forwards alone do not use
        seconds, _ = timing.time_once(session, lambda: engine_access.draw(model, side_px, steps))
        figure["seconds"] = round(seconds, 3)


def record_usage(
    session: Session,
    recorder: Recorder,
    model: Model,
    variant: str,
    side_px: int,
    steps: int,
    turns: int,
) -> None:
    """Record the device's busy share and longest gaps during `turns` forwards for eight callers.

    The callers are at different steps of their images, as after a while of service.
    """
    side_px, steps, turns = session.side(side_px), session.few(steps), session.few(turns)
    count = session.crowd(8)
    conditions = {"variant": variant, "side_px": side_px, "steps": steps, "callers": count}
    with recorder.figure("usage", **conditions) as figure:
        callers = engine_access.Callers(model, side_px, steps, count)

        def work() -> None:
            for _ in range(turns):
                callers.turn()
            timing.synchronize(session)

        try:
            work()
            usage, waits = trace(session, work, recorder.stage)
        finally:
            callers.close()
        figure["turns"] = turns
        figure["wall_ms"] = round(usage.wall_ms, 1)
        figure["busy_share"] = round(usage.busy_share, 4)
        figure["idle_ms"] = round(sum(gap.ms for gap in usage.gaps), 2)
        figure["gaps"] = [(gap.ms, gap.after, gap.before) for gap in usage.gaps[:_LONGEST_GAPS]]
        figure["waits_ms"] = waits


def record_decodes(session: Session, recorder: Recorder, model: Model, side_px: int) -> None:
    """Time the VAE's decode of one and of four images, in both memory layouts."""
    side_px = session.side(side_px)
    pipeline = engine_access.pipeline_of(model)
    vae, cells = pipeline.vae, side_px // int(pipeline.vae_scale_factor)
    shape = 1, vae.config.latent_channels, cells, cells
    latents = torch.randn(shape, device=session.device, dtype=vae.dtype)
    for layout, memory_format in (
        ("contiguous", torch.contiguous_format),
        ("channels_last", torch.channels_last),
    ):
        vae.to(memory_format=memory_format)
        for images in (1, 4):
            conditions = {"side_px": side_px, "layout": layout, "images": images}
            with recorder.figure("decode", **conditions) as figure, torch.no_grad():
                many = latents.repeat(images, 1, 1, 1)
                timed = timing.measure(session, functools.partial(vae.decode, many), 3)
                figure["decode_ms"] = ms(timed.median_s)
                figure["launch_ms"] = ms(timed.launch_s)
                figure["peak_gib"] = timed.peak_gib
